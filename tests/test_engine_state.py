"""What an engine leaves behind, and what it does not depend on: hooks, other engines and threads, grad mode."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from small_networks import conv, difference, make, masks_of, pixels
from torch import Tensor, nn

import isnet

_BOTH_RULES = ("zplus", "epsilon")


# ---- nothing is left behind ----


def _snapshot(network: nn.Module) -> dict[str, object]:
    return {
        name: {
            key: list(value.items()) if isinstance(value, dict) else value
            for key, value in vars(module).items()
            if key not in ("_parameters", "_buffers", "_modules")
        }
        for name, module in network.named_modules()
    }


def _explain_everything(engine: Callable, network: nn.Module, images: Tensor) -> None:
    for rules in (("epsilon",), _BOTH_RULES):
        _, relevance, _ = engine(network, rules=rules, layers=("4",))(images, isnet.JointLogits())
        torch.autograd.grad(relevance.square().sum(), list(network.parameters()), allow_unused=True)


def test_a_network_in_evaluation_mode_stays_as_it_was(engine: Callable) -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    state, attributes, logits = copy.deepcopy(network.state_dict()), _snapshot(network), network(images)
    pixels_before, generator = images.clone(), torch.get_rng_state()
    _explain_everything(engine, network, images)
    with pytest.raises(ValueError, match="labels"):
        engine(network, rules=("epsilon",), layers=("4",))(images, isnet.Logit(99))
    assert _snapshot(network) == attributes
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network(images), logits)
    assert torch.equal(images, pixels_before)
    assert not images.requires_grad
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.relu(images.requires_grad_()).grad_fn.name() == "ReluBackward0"


@pytest.mark.parametrize("mode", ["frozen", "differentiated", None])
@pytest.mark.parametrize("rules", [("epsilon",), _BOTH_RULES])
def test_running_statistics_are_updated_once_for_each_call(rules: tuple[str, ...], mode: str | None) -> None:
    network, images = make("residual").train(), pixels(4, 3, 12, 12)
    plain = copy.deepcopy(network)
    if mode is None:
        explain = isnet.LRPBlock(network, rules=rules, layers=("4",))
    else:
        explain = isnet.LRPFlex(network, rules=rules, layers=("4",), batch_statistics=mode)
    for _ in range(2):
        explain(images, isnet.JointLogits())
        plain(images)
    for key, value in plain.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    assert network[1].num_batches_tracked == 2


class _Failing(nn.Module):
    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.first, self.relu, self.error = conv(3, 4), nn.ReLU(), error

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        if self.error is not None:
            raise self.error
        return x.sigmoid().mean((2, 3))


@pytest.mark.parametrize(("error", "expected"), [(KeyError("inside"), KeyError), (None, isnet.UnsupportedNetworkError)])
def test_nothing_stays_after_a_failure(engine: Callable, error: Exception | None, expected: type[Exception]) -> None:
    network = _Failing(error)
    attributes = _snapshot(network)
    with pytest.raises(expected):
        engine(network, layers=("first",))(pixels(1, 3, 6, 6, dtype=torch.float32), isnet.Logit(0))
    assert _snapshot(network) == attributes
    assert torch.relu(torch.ones(1, requires_grad=True)).grad_fn.name() == "ReluBackward0"
    assert torch.is_grad_enabled()


def test_an_explained_network_can_be_copied_and_stored(engine: Callable) -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    _explain_everything(engine, network, images)
    stored = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    assert torch.equal(stored(images), network(images))


def test_activations_are_freed_without_the_garbage_collector(engine: Callable) -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    activations: list[weakref.ref] = []
    network[3].register_forward_hook(lambda *call: activations.append(weakref.ref(call[-1])))
    gc.collect()
    gc.disable()
    try:
        explanation = engine(network, rules=_BOTH_RULES, layers=("5",))(images, isnet.JointLogits())
        explanation.relevance.sum().backward()
        del explanation
        assert activations[0]() is None
    finally:
        gc.enable()


# ---- hooks of the user ----


@pytest.mark.parametrize(
    ("take", "named"),
    [
        (Tensor.detach, "detach"),
        (lambda out: out.data, "data"),
        (lambda out: out.mean().item(), "item"),
        (torch.no_grad()(lambda out: out.mean()), "mean"),
    ],
)
def test_a_hook_that_takes_values_out_of_the_graph_is_told_to_do_so_later(take: Callable, named: str) -> None:
    network, kept = make("residual"), []
    network[3].register_forward_hook(lambda module, inputs, out: kept.append(take(out)))
    with pytest.raises(isnet.UnsupportedNetworkError, match=rf"'{named}' in 3 \(Branches\)\. A forward hook .* after"):
        isnet.LRPFlex(network)(pixels(2, 3, 12, 12), isnet.Logit(0))


def test_a_hook_may_keep_outputs_and_detach_them_after_the_call() -> None:
    network, images, kept = make("residual"), pixels(2, 3, 12, 12), []
    expected = isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance
    network[3].register_forward_hook(lambda module, inputs, out: kept.append(out.clone()))
    assert torch.equal(isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance, expected)
    assert torch.equal(kept[0].detach(), network[:4](images))


# ---- engines and threads side by side ----


def _gradients(relevance: Tensor, network: nn.Module, images: Tensor) -> list[Tensor]:
    loss = isnet.HeatmapLoss(0.1, 1.0)(relevance, masks_of(images))
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def test_engines_with_other_settings_on_one_network_do_not_disturb_each_other() -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    engines = [
        isnet.LRPFlex(network, 1e-2),
        isnet.LRPFlex(network, 0.7, "epsilon"),
        isnet.LRPFlex(network, 0.2, rules=_BOTH_RULES, layers=("4",)),
        isnet.LRPBlock(network, ("epsilon",), 0.3, layers=("2", "4")),
    ]
    alone = [
        (explanation.relevance, _gradients(explanation.relevance, network, images))
        for explanation in (engine(images, isnet.JointLogits()) for engine in engines)
    ]
    mixed = [engine(images, isnet.JointLogits()) for engine in reversed(engines)][::-1]
    for explanation, (relevance, gradients) in zip(mixed, alone, strict=True):
        assert torch.equal(explanation.relevance, relevance)
        for found, expected in zip(_gradients(explanation.relevance, network, images), gradients, strict=True):
            assert torch.equal(found, expected)
    assert difference(mixed[0].relevance, mixed[1].relevance) > 0.1


@contextmanager
def _eager_switching() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def test_threads_with_other_settings_on_one_network_do_not_disturb_each_other(engine: Callable) -> None:
    network, images = make("residual", dtype=torch.float32), pixels(2, 3, 8, 8, dtype=torch.float32)
    jobs: list[Callable[[], tuple[Tensor, ...]]] = []
    for epsilon, rules, layers in [
        (1e-2, ("epsilon",), ("2", "4")),
        (0.5, ("zplus", "epsilon"), ("4", "6")),
        (0.1, ("epsilon",), ()),
        (1.0, ("zplus",), ("2", "6", "7")),
    ]:
        explain = engine(network, epsilon=epsilon, rules=rules, layers=layers)

        def job(explain: Callable = explain) -> tuple[Tensor, ...]:
            logits, relevance, maps = explain(images, isnet.JointLogits())
            return logits, relevance, *maps.values(), *_gradients(relevance, network, images)

        jobs.append(job)
    alone = [job() for job in jobs]
    start = threading.Barrier(len(jobs))

    def repeated(job: Callable[[], tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        start.wait()
        return [job() for _ in range(30)]

    with _eager_switching(), ThreadPoolExecutor(len(jobs)) as pool:
        results = list(pool.map(repeated, jobs))
    for expected, repetitions in zip(alone, results, strict=True):
        for found in repetitions:
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert not any(module._forward_hooks for module in network.modules())


def test_another_thread_may_use_the_network_meanwhile(engine: Callable) -> None:
    network, images = make("residual", dtype=torch.float32), pixels(2, 3, 8, 8, dtype=torch.float32)
    explain = engine(network, layers=("2", "4"))
    expected, logits = explain(images, isnet.Logit(0)).relevance, network(images)
    stop = threading.Event()

    def predict() -> bool:
        equal = True
        while not stop.is_set():
            equal &= torch.equal(network(images), logits)
        return equal

    with _eager_switching(), ThreadPoolExecutor(1) as pool:
        prediction = pool.submit(predict)
        found = [explain(images, isnet.Logit(0)).relevance for _ in range(30)]
        stop.set()
    assert prediction.result()
    assert all(torch.equal(relevance, expected) for relevance in found)


# ---- grad mode ----


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_numbers_are_the_same_and_detached(
    engine: Callable, context: Callable, input_rule: str
) -> None:
    network = make("residual")
    explain = engine(network, input_rule=input_rule, layers=("4",), rules=_BOTH_RULES)
    expected = explain(pixels(2, 3, 12, 12), isnet.JointLogits())
    assert expected.relevance.requires_grad
    with context():
        found = explain(pixels(2, 3, 12, 12), isnet.JointLogits())
        assert not torch.is_grad_enabled()
    for one, other in [
        (found.logits, expected.logits),
        (found.relevance, expected.relevance),
        (found.layers["4"], expected.layers["4"]),
    ]:
        assert not one.requires_grad
        assert torch.equal(one, other)


def test_numbers_made_without_gradients_can_be_used_with_them() -> None:
    explain = isnet.LRPFlex(make("plain"))
    with torch.inference_mode():
        images = pixels(1, 3, 8, 8)
        relevance = explain(images, isnet.Logit(0)).relevance
    assert (relevance * torch.ones(1, dtype=torch.float64, requires_grad=True)).sum().requires_grad


def test_images_from_inference_mode_can_be_explained_with_gradients() -> None:
    network = make("plain")
    with torch.inference_mode():
        images = pixels(1, 3, 8, 8)
    found = isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance
    assert torch.equal(found, isnet.LRPFlex(network)(pixels(1, 3, 8, 8), isnet.Logit(0)).relevance)
    assert found.requires_grad


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
def test_maps_come_in_the_order_of_the_rules(engine: Callable, input_rule: str) -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    # LRP-Block knows scores of single classes for both rules.
    quantity = isnet.JointLogits() if engine is isnet.LRPFlex else isnet.EveryLogit()

    def maps(*rules: str) -> Tensor:
        _, relevance, layers = engine(network, input_rule=input_rule, rules=rules, layers=("4",))(images, quantity)
        return torch.cat([relevance.flatten(2), layers["4"].flatten(2)], 2)

    assert torch.equal(maps("zplus", "epsilon"), torch.cat([maps("zplus"), maps("epsilon")], 1))
    assert torch.equal(maps("epsilon", "zplus"), torch.cat([maps("epsilon"), maps("zplus")], 1))


# ---- lower precision ----


def _training_step(network: nn.Module, images: Tensor, propagation: str, epsilon: float) -> tuple[isnet.Losses, Tensor]:
    net = isnet.DualISNet(network, isnet.HeatmapLoss(0.1, 1.0), propagation=propagation, epsilon=epsilon)
    losses = net.training_loss(images, masks_of(images.float()), torch.tensor([0, 1, 2, 0]))
    gradients = torch.autograd.grad(losses.total, [weight for weight in network.parameters() if weight.ndim > 1])
    return losses, torch.cat([gradient.flatten().double() for gradient in gradients])


@pytest.mark.parametrize("epsilon", [1e-2, 3e-3, 1e-4])
@pytest.mark.parametrize("name", ["residual", "plain", "concatenation"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_maps_near_those_of_single_precision_and_finite_gradients(
    dtype: torch.dtype, name: str, epsilon: float
) -> None:
    network, images = make(name, dtype=torch.float32).train(), pixels(4, 3, 12, 12, dtype=torch.float32)
    explain = isnet.LRPFlex(copy.deepcopy(network), epsilon)
    expected, wanted = _training_step(copy.deepcopy(network), images, "flex", epsilon)
    maps = explain(images, isnet.JointLogits()).relevance
    with torch.autocast("cpu", dtype):
        found, gradient = _training_step(network, images, "flex", epsilon)
        rounded = explain(images, isnet.JointLogits()).relevance
    assert bool(gradient.isfinite().all())
    assert found.total.item() == pytest.approx(expected.total.item(), rel=0.05)
    # Rounding the images alone makes most of it.
    assert (rounded - maps).norm() < (0.02 if dtype == torch.float16 else 0.2) * maps.norm()
    if dtype == torch.float16 and epsilon > 1e-4:
        assert torch.cosine_similarity(gradient, wanted, 0) > 0.9


@pytest.mark.parametrize("propagation", ["flex", "block"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_lower_precision_can_be_trained(dtype: torch.dtype, propagation: str) -> None:
    network, images = make("residual", dtype=torch.float32).train(), pixels(4, 3, 12, 12, dtype=torch.float32)
    expected, _ = _training_step(copy.deepcopy(network), images, propagation, 3e-3)
    found, gradient = _training_step(network.to(dtype), images.to(dtype), propagation, 3e-3)
    assert bool(gradient.isfinite().all())
    assert found.total.item() == pytest.approx(expected.total.item(), rel=0.1)


def test_the_loss_of_maps_of_lower_precision_is_computed_in_single_precision() -> None:
    relevance = pixels(2, 2, 3, 40, 40, dtype=torch.float32) - 0.5
    masks, values = masks_of(relevance[:, 0]), relevance.flatten(2)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = relevance.to(dtype)
        loss = isnet.HeatmapLoss(1.0, 5.0)
        assert torch.equal(loss(rounded, masks), loss(rounded.float(), masks))
        for decay in (0.0, 0.5, 0.999, 1.0):
            pooled = isnet.gwrp(values.to(dtype), decay)
            assert pooled.dtype == dtype
            assert torch.allclose(pooled.float(), isnet.gwrp(values, decay), rtol=1e-2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = isnet.HeatmapLoss(1.0, 5.0)(relevance, masks)
    assert torch.equal(inside, isnet.HeatmapLoss(1.0, 5.0)(relevance, masks))
