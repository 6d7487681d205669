"""Gradients of heatmap losses against finite differences, and against a rewrite without custom autograd functions.

Where the derivative of the heatmap deliberately leaves something out, finite differences of the heatmap differ from it
by construction, so the test says what is left out and how it is compared instead:

* z^B takes its bias (the first layer's, and the shift of its batch norm) and that batch norm's statistics as constants;
* "frozen" batch statistics are constants of the heatmap's backward pass, though not of the activations in it: finite
  differences hold when the statistics are given from outside, and a rewrite that detaches them is the oracle when not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from small_networks import conv, difference, make, masks_of, pixels, randomise, without_biases, zb_by_autograd
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import isnet

_EPSILON = 0.05


class _Criterion(nn.Module):
    """Heatmap loss of one engine's maps: a module, so that its parameters can be swapped by functional_call."""

    def __init__(
        self, network: nn.Module, quantity: isnet.Quantity, images: Tensor, record: bool = False, **options: object
    ) -> None:
        super().__init__()
        self.network, self.quantity, self.images = network, quantity, images
        self.explain = isnet.LRPFlex(network, _EPSILON, **options)
        self.loss = isnet.HeatmapLoss(0.3, 0.6, decay=0.8)
        self.statistics = None
        if record:
            with isnet.BatchStatistics() as self.statistics:
                network(images)

    def forward(self) -> Tensor:
        _, relevance, layers = self.explain(self.images, self.quantity, self.statistics)
        return sum(self.loss(heatmap, masks_of(self.images)) for heatmap in (relevance, *layers.values()))


def _agrees_with_finite_differences(criterion: _Criterion, without: tuple[str, ...] = ()) -> bool:
    parameters = {
        f"network.{name}": value for name, value in criterion.network.named_parameters() if name not in without
    }
    names = list(parameters)
    # Running statistics must stay put between evaluations.
    buffers = {f"network.{name}": value for name, value in criterion.network.named_buffers()}

    def loss(*values: Tensor) -> Tensor:
        copies = {name: value.clone() for name, value in buffers.items()}
        return functional_call(criterion, {**dict(zip(names, values, strict=True)), **copies}, ())

    values = tuple(value.detach().clone().requires_grad_() for value in parameters.values())
    gradients = torch.autograd.grad(loss(*values), values, allow_unused=True)
    assert sum(gradient is not None and bool(gradient.any()) for gradient in gradients) >= len(names) - 2
    return torch.autograd.gradcheck(loss, values, fast_mode=True, eps=1e-7, atol=1e-6, rtol=1e-4)


def _small(norm: bool = True) -> nn.Module:
    torch.manual_seed(3)
    layers: list[nn.Module] = [
        conv(2, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(3, 4),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 3),
    ]
    if not norm:
        layers = [layer for layer in layers if not isinstance(layer, nn.BatchNorm2d)]
    return randomise(nn.Sequential(*layers), 3).double().eval()


_QUANTITIES: dict[str, Callable[[], isnet.Quantity]] = {
    "every": isnet.EveryLogit,
    "label": lambda: isnet.Logit(torch.tensor([2, 0])),
    "eta": lambda: isnet.SoftmaxEta(labels=torch.tensor([1, 2])),
    "joint": isnet.JointLogits,
}
_RULES = [(("epsilon",), quantity) for quantity in _QUANTITIES] + [
    (("zplus",), "joint"),
    (("zplus", "epsilon"), "joint"),
]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize(("rules", "quantity"), _RULES)
def test_evaluation_mode(rules: tuple[str, ...], quantity: str, input_rule: str, norm: bool) -> None:
    criterion = _Criterion(
        _small(norm), _QUANTITIES[quantity](), pixels(2, 2, 6, 6), input_rule=input_rule, rules=rules
    )
    constants = () if input_rule == "epsilon" else ("0.bias", "1.bias") if norm else ("0.bias",)
    assert _agrees_with_finite_differences(criterion, constants)


@pytest.mark.parametrize("name", ["residual", "concatenation", "linear_bottleneck", "overlapping_max_pool"])
@pytest.mark.parametrize(("rules", "quantity"), [(("epsilon",), "eta"), (("zplus", "epsilon"), "joint")])
def test_other_structures(name: str, rules: tuple[str, ...], quantity: str) -> None:
    criterion = _Criterion(
        make(name, seed=1), _QUANTITIES[quantity](), pixels(2, 3, 12, 8), input_rule="epsilon", rules=rules
    )
    assert _agrees_with_finite_differences(criterion)


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize(("rules", "quantity"), [(("epsilon",), "eta"), (("zplus", "epsilon"), "joint")])
@pytest.mark.parametrize("name", ["plain", "max_pool", "residual", "concatenation"])
def test_inactive_slope(name: str, rules: tuple[str, ...], quantity: str, input_rule: str) -> None:
    network = make(name, seed=1)
    constants = [] if input_rule == "epsilon" else ["0.bias"]
    if input_rule == "zb" and name == "residual":
        constants.append("1.bias")
    options = {"input_rule": input_rule, "rules": rules, "inactive_slope": 0.3}
    criterion = _Criterion(network, _QUANTITIES[quantity](), pixels(2, 3, 12, 8), **options)
    assert _agrees_with_finite_differences(criterion, tuple(constants))


def test_deep_supervision() -> None:
    criterion = _Criterion(_small(), isnet.EveryLogit(), pixels(2, 2, 6, 6), input_rule="epsilon", layers=("2", "6"))
    assert _agrees_with_finite_differences(criterion)


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize(("rules", "quantity"), [(("epsilon",), "every"), (("zplus", "epsilon"), "joint")])
def test_training_mode_with_given_statistics(rules: tuple[str, ...], quantity: str, input_rule: str) -> None:
    criterion = _Criterion(
        _small().train(),
        _QUANTITIES[quantity](),
        pixels(3, 2, 6, 6)[:2],
        input_rule=input_rule,
        rules=rules,
        record=True,
    )
    assert _agrees_with_finite_differences(criterion, () if input_rule == "epsilon" else ("0.bias", "1.bias"))


def test_inactive_slope_in_training_mode() -> None:
    options = {"record": True, "inactive_slope": 0.3}
    criterion = _Criterion(_small().train(), isnet.EveryLogit(), pixels(3, 2, 6, 6)[:2], **options)
    assert _agrees_with_finite_differences(criterion, ("0.bias", "1.bias"))


@pytest.mark.parametrize("quantity", ["every", "eta"])
def test_training_mode_with_differentiated_statistics(quantity: str) -> None:
    criterion = _Criterion(
        _small().train(),
        _QUANTITIES[quantity](),
        pixels(2, 2, 6, 6),
        input_rule="epsilon",
        batch_statistics="differentiated",
    )
    assert _agrees_with_finite_differences(criterion)


def _frozen_map(network: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """Rewrite the map of logit 0 of `_small` in training mode, with detached statistics on the way back."""
    scales, values, x = [], [], images
    for stage in (network[:3], network[4:7]):
        z = stage[0](x)
        variance, mean = torch.var_mean(z, (0, 2, 3), correction=0, keepdim=True)
        inverse_std = (variance + stage[1].eps).rsqrt()
        gamma, beta = stage[1].weight.view(1, -1, 1, 1), stage[1].bias.view(1, -1, 1, 1)
        x = ((z - mean) * inverse_std * gamma + beta).clamp(min=0)
        scales.append(inverse_std.detach() * gamma)
        values.append(x)
        if stage[0] is network[0]:
            x, places = F.max_pool2d(x, 2, return_indices=True)
    first, second = values
    relevance_per_unit = network[8].weight[0].view(1, *second.shape[1:])
    back = relevance_per_unit * second / (second + _EPSILON) * scales[1]
    back = F.conv_transpose2d(back, network[4].weight, padding=1)
    back = F.max_unpool2d(back, places, 2) * first / (first + _EPSILON) * scales[0]
    return first, images * F.conv_transpose2d(back, network[0].weight, padding=1)


def test_training_mode_with_frozen_statistics_equals_a_rewrite() -> None:
    network, images = _small().train(), pixels(4, 2, 6, 6)
    explain = isnet.LRPFlex(network, _EPSILON, "epsilon", batch_statistics="frozen")
    _, expected = _frozen_map(network, images)
    relevance = explain(images, isnet.Logit(0)).relevance
    assert difference(relevance[:, 0], expected) < 1e-10
    loss, parameters = isnet.HeatmapLoss(0.3, 0.6), dict(network.named_parameters())
    found, wanted = (
        torch.autograd.grad(loss(maps, masks_of(images)), list(parameters.values()), allow_unused=True)
        for maps in (relevance, expected[:, None])
    )
    assert found[-1] is None
    floor = max(gradient.abs().max() for gradient in wanted[:-1])
    for name, one, other in zip(parameters, found[:-1], wanted[:-1], strict=False):
        assert (one - other).abs().max() < 1e-9 * max(other.abs().max(), 1e-3 * floor), name


@pytest.mark.parametrize("seed", range(2))
def test_zb_rule_takes_its_bias_as_a_constant(seed: int) -> None:
    network, images = make("plain", seed), pixels(2, 3, 8, 8, seed=seed)
    _, relevance, layers = isnet.LRPFlex(network, layers=("1",))(images, isnet.Logit(0))
    expected = zb_by_autograd(images, layers["1"][:, 0], network[0], network[0].bias.detach(), 0.0, 1.0, 1e-2)
    wrong = zb_by_autograd(images, layers["1"][:, 0], network[0], network[0].bias, 0.0, 1.0, 1e-2)
    weight = pixels(2, 3, 8, 8, seed=9)

    def bias_gradient(maps: Tensor) -> Tensor:
        return torch.autograd.grad((maps * weight).sum(), network[0].bias, retain_graph=True)[0]

    assert difference(bias_gradient(relevance[:, 0]), bias_gradient(expected)) < 1e-10
    assert difference(bias_gradient(wrong), bias_gradient(expected)) > 1e-3


def test_heatmaps_are_differentiable_with_respect_to_the_images() -> None:
    network = _small()
    for input_rule, rule in itertools.product(("epsilon", "zb"), ("epsilon", "zplus")):
        explain = isnet.LRPFlex(network, _EPSILON, input_rule, rules=(rule,))
        images = (pixels(1, 2, 6, 6) * 0.9 + 0.05).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, explain=explain: explain(x, isnet.JointLogits()).relevance,
            images,
            fast_mode=True,
            eps=1e-7,
            atol=1e-6,
        )


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_heatmaps_can_be_differentiated_twice(rule: str, input_rule: str) -> None:
    network = without_biases(_small(norm=False))
    explain, images = isnet.LRPFlex(network, 0.5, input_rule, rules=(rule,)), pixels(1, 2, 6, 6)

    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self) -> Tensor:
            return explain(images, isnet.JointLogits()).relevance.square().sum()

    maps = Maps()
    names, values = zip(
        *((name, value.detach().clone().requires_grad_()) for name, value in maps.named_parameters()), strict=True
    )
    assert torch.autograd.gradgradcheck(
        lambda *given: functional_call(maps, dict(zip(names, given, strict=True)), ()),
        values,
        fast_mode=True,
        eps=1e-7,
        atol=1e-5,
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_statistics", ["frozen", "differentiated"])
def test_gradients_of_the_logits_stay_ordinary(batch_statistics: str, training: bool) -> None:
    network, images = make("residual").train(training), pixels(3, 3, 10, 10).requires_grad_()
    logits = isnet.LRPFlex(network, batch_statistics=batch_statistics)(images, isnet.EveryLogit()).logits

    def derivatives(outputs: Tensor) -> list[Tensor]:
        targets = [images, *network.parameters()]
        first = torch.autograd.grad(outputs.square().sum(), targets, create_graph=True)
        return [*first, *torch.autograd.grad(first[0].square().sum(), targets[:-1])]

    for found, expected in zip(derivatives(logits), derivatives(network(images)), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
