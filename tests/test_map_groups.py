"""Maps that are made in groups: loss and gradients are those of all maps at one time, and their graphs are not."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_networks import batch, difference, make, masks_of
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, parametrizations

import isnet
from isnet.flex_functions import _Damp

_RANGE = {"c1": 0.1, "c2": 1.0, "decay": (0.9, 0.5), "channel_decay": 0.6}
_NETWORKS = ["residual", "concatenation", "overlapping_max_pool", "linear_bottleneck"]


def _gradients(
    variant: type, network: nn.Module, loss: Any, weights: tuple[float, float] = (0.3, 0.7), **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Return both parts of the loss and, with these weights of the parts, the parameters' gradients."""
    net = variant(network, loss, **options).train(network.training)
    network.zero_grad()
    parts = net.training_loss(*batch()).parts
    (weights[0] * parts["classification"] + weights[1] * parts["heatmap"]).backward()
    found = [torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in network.parameters()]
    return [part.detach() for part in parts.values()], found


def _agree(found: tuple[list[Tensor], list[Tensor]], expected: tuple[list[Tensor], list[Tensor]]) -> bool:
    # Of all parameters at once, since some gradients are 0 but for rounding.
    return all(
        difference(*(torch.cat([value.flatten() for value in each]) for each in pair)) < 1e-11
        for pair in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", _NETWORKS)
@pytest.mark.parametrize("variant", [isnet.OriginalISNet, isnet.DualISNet])
def test_loss_and_gradients_are_those_of_all_maps_at_one_time(variant: type, name: str, training: bool) -> None:
    network, loss = make(name).train(training), isnet.HeatmapLoss(**_RANGE)
    expected = _gradients(variant, network, loss, maps_at_once=None)
    for maps_at_once in (1, 2):
        assert _agree(_gradients(variant, network, loss, maps_at_once=maps_at_once), expected)
    counters = [each.num_batches_tracked for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    assert all(counter == (3 if training else 0) for counter in counters)


@pytest.mark.parametrize(
    "options",
    [
        {"input_rule": "epsilon"},
        {"inactive_slope": 0.3},
        {"batch_statistics": "differentiated"},
        {"propagation": "block"},
        {"heatmap_fraction": 0.5},
        {"layers": ("0",), "layer_decay": 0.5},
    ],
    ids=str,
)
def test_every_setting_keeps_its_gradients(options: dict[str, Any]) -> None:
    network, loss = make("residual").train(), isnet.HeatmapLoss(**_RANGE)
    found = []
    for maps_at_once in (1, None):
        source = torch.Generator().manual_seed(0)
        options |= {"generator": source, "maps_at_once": maps_at_once}
        found.append(_gradients(isnet.OriginalISNet, network, loss, **options))
    assert _agree(*found)


@pytest.mark.parametrize("loss", [isnet.HeatmapLoss((0.1, 2.0), (0.7, 9.0)), isnet.HeatmapLoss(0.1, 1.0, w2=0)])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (64.0, 128.0)])
def test_each_part_has_its_own_gradient(loss: isnet.HeatmapLoss, weights: tuple[float, float]) -> None:
    network = make("residual").train()
    found = [_gradients(isnet.DualISNet, network, loss, weights, maps_at_once=number) for number in (1, None)]
    assert _agree(*found)


def test_gradients_accumulate_and_are_clipped_as_ever() -> None:
    network, norms = make("residual").train(), []
    for maps_at_once in (1, None):
        net = isnet.OriginalISNet(network, isnet.HeatmapLoss(**_RANGE), maps_at_once=maps_at_once).train()
        network.zero_grad()
        for _ in range(2):
            (net.training_loss(*batch()).total / 2).backward()
        norms.append(clip_grad_norm_(network.parameters(), 0.1).item())
    assert norms[0] == pytest.approx(norms[1], rel=1e-11)


def test_gradients_are_handed_on_once_for_each_backward_pass() -> None:
    network = make("residual").train()
    total = isnet.OriginalISNet(network, isnet.HeatmapLoss(**_RANGE)).train().training_loss(*batch()).total
    first = torch.autograd.grad(total, [*network.parameters()], retain_graph=True)
    for found, expected in zip(torch.autograd.grad(total, [*network.parameters()]), first, strict=True):
        assert torch.equal(found, expected)


def test_parts_of_a_network_may_be_frozen_and_weights_be_computed() -> None:
    network, loss = make("residual").train(), isnet.HeatmapLoss(**_RANGE)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    convolutions[0].requires_grad_(False)
    parametrizations.weight_norm(convolutions[-1])
    found = [_gradients(isnet.OriginalISNet, network, loss, maps_at_once=number) for number in (1, None)]
    assert _agree(*found)


def test_gradients_reach_the_images() -> None:
    network, (images, masks, labels) = make("residual"), batch()
    found = []
    for maps_at_once in (1, None):
        source = images.clone().requires_grad_()
        net = isnet.OriginalISNet(network, isnet.HeatmapLoss(**_RANGE), maps_at_once=maps_at_once).eval()
        found.append(torch.autograd.grad(net.training_loss(source * 0.9, masks, labels).total, source)[0])
    assert difference(*found) < 1e-11


def test_hooks_of_parameters_see_the_whole_gradient() -> None:
    network, found = make("residual").train(), []
    for each in network.parameters():
        each.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))
    for maps_at_once in (1, None):
        found.append(_gradients(isnet.OriginalISNet, network, isnet.HeatmapLoss(**_RANGE), maps_at_once=maps_at_once))
    assert _agree(*found)


def test_maps_that_are_not_finite_are_filled_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    network, loss, starts = make("residual").train(), isnet.HeatmapLoss(**_RANGE), isnet.flex._starts

    def broken(*given: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for index, (score, weight) in enumerate(starts(*given)):
            yield score, torch.where(torch.arange(len(weight)) == index - 1, torch.inf, weight)

    monkeypatch.setattr(isnet.flex, "_starts", broken)
    (parts, _), (expected, _) = (
        _gradients(isnet.OriginalISNet, network, loss, maps_at_once=number) for number in (1, None)
    )
    assert difference(torch.stack(parts), torch.stack(expected)) < 1e-12


def test_a_second_derivative_is_refused() -> None:
    network = make("residual")
    total = isnet.OriginalISNet(network, isnet.HeatmapLoss(**_RANGE)).eval().training_loss(*batch()).total
    with pytest.raises(RuntimeError, match="cannot be differentiated again: give the ISNet maps_at_once=None"):
        torch.autograd.grad(total, [*network.parameters()], create_graph=True)


def test_without_gradients_the_loss_is_the_same() -> None:
    net = isnet.OriginalISNet(make("residual"), isnet.HeatmapLoss(**_RANGE)).eval()
    expected = net.training_loss(*batch()).total.detach()
    with torch.no_grad():
        assert net.training_loss(*batch()).total == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("maps_at_once", [0, -1])
def test_a_group_without_maps_is_refused(maps_at_once: int) -> None:
    with pytest.raises(ValueError, match="maps_at_once must be at least 1, or None"):
        isnet.OriginalISNet(make("residual"), isnet.HeatmapLoss(0.1, 1.0), maps_at_once=maps_at_once)


@pytest.mark.parametrize("maps_at_once", [1, 2, None])
def test_so_many_maps_have_a_graph_at_one_time(maps_at_once: int | None) -> None:
    """Counts the ReLU steps of maps that are alive whenever another is made."""
    network, most = make("plain"), 0
    relus = sum(isinstance(module, nn.ReLU) for module in network.modules())
    net = isnet.OriginalISNet(network, isnet.HeatmapLoss(0.1, 1.0), maps_at_once=maps_at_once).eval()
    images, _, labels = batch()
    with pytest.MonkeyPatch.context() as patch:
        alive, forward = [0], _Damp.forward

        class Token:
            def __init__(self) -> None:
                alive[0] += 1

            def __del__(self) -> None:
                alive[0] -= 1

        def counted(ctx: Any, *args: Any) -> Tensor:
            nonlocal most
            ctx.token = Token()
            most = max(most, alive[0])
            return forward(ctx, *args)

        patch.setattr(_Damp, "forward", staticmethod(counted))
        gc.collect()
        net.training_loss(images, masks_of(images), labels).total.backward()
    # Relevance of the first layer starts behind its ReLU.
    assert most == (relus - 1) * (maps_at_once or 3)
