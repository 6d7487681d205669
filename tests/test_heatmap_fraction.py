"""`heatmap_fraction`: which images are explained, with which batch statistics, and that the loss is unbiased."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from scipy import stats
from small_networks import NETWORKS, VARIANTS, batch, difference, generator, make, pixels
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import isnet


class _Recording(isnet.HeatmapLoss):
    """A heatmap loss that keeps what it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(0.1, 1.0, **options)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, relevance: Tensor, masks: Tensor) -> Tensor:
        self.seen.append((relevance.detach(), masks))
        return super().forward(relevance, masks)


def _tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))


def _drawn_images(number: int, fraction: float, draws: int) -> list[tuple[int, ...]]:
    """Return which images each of many draws explains: their masks tell."""
    loss = _Recording()
    net = isnet.SelectiveISNet(_tiny(), loss, heatmap_fraction=fraction, generator=generator()).train()
    images = pixels(number, 1, 3, 3, dtype=torch.float32)
    # The number of an image, counted from 1, in binary.
    places = 2 ** torch.arange(9).view(1, 1, 3, 3)
    masks = (torch.arange(1, number + 1).view(-1, 1, 1, 1) // places % 2).float()
    labels = torch.zeros(number, dtype=torch.int64)
    for _ in range(draws):
        net.training_loss(images, masks, labels)
    return [tuple(int(index) - 1 for index in (masks * places).sum((1, 2, 3))) for _, masks in loss.seen]


@pytest.mark.parametrize(
    ("number", "fraction", "explained"),
    [
        (8, 1.0, 8),
        (8, 0.5, 4),
        (8, 0.25, 2),
        (8, 0.125, 1),
        (8, 0.01, 1),
        (64, 1 / 8, 8),
        (64, 1 / 32, 2),
        (5, 0.5, 2),
        (7, 0.9, 6),
        (3, 0.99, 3),
        (1, 0.5, 1),
    ],
)
def test_number_of_explained_images(number: int, fraction: float, explained: int) -> None:
    (drawn,) = _drawn_images(number, fraction, 1)
    assert len(drawn) == explained
    assert len(set(drawn)) == explained


@pytest.mark.slow
def test_no_image_and_no_pair_is_favoured() -> None:
    drawn = _drawn_images(6, 1 / 3, 600)
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=6)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    pairs = [tuple(sorted(pair)) for pair in drawn]
    assert stats.chisquare([pairs.count(pair) for pair in itertools.combinations(range(6), 2)]).pvalue > 1e-3


def test_draws_follow_the_generator() -> None:
    assert _drawn_images(6, 0.5, 5) == _drawn_images(6, 0.5, 5)
    assert len(set(_drawn_images(6, 0.5, 5))) > 1


def _position(masks: Tensor, all_masks: Tensor) -> list[int]:
    return [next(index for index, mask in enumerate(all_masks) if torch.equal(mask, one)) for one in masks]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("propagation", ["flex", "block"])
@pytest.mark.parametrize("variant", [isnet.OriginalISNet, isnet.DualISNet, isnet.SelectiveISNet])
def test_heatmaps_of_a_part_are_those_of_the_wholebatch(variant: type, propagation: str, training: bool) -> None:
    network, (images, masks, labels) = make("residual").train(training), batch(6)
    whole, part = _Recording(), _Recording()
    options = {"propagation": propagation, "layers": ("4",)}
    full = variant(copy.deepcopy(network), {"input": whole, "4": whole}, **options).train(training)
    sampled = variant(
        network, {"input": part, "4": part}, heatmap_fraction=0.5, generator=generator(1), **options
    ).train(training)
    expected, found = (net.training_loss(images, masks, labels).parts for net in (full, sampled))
    assert torch.allclose(found["classification"], expected["classification"])
    for (maps, chosen), (all_maps, all_masks) in zip(part.seen, whole.seen, strict=True):
        assert len(maps) == 3
        assert difference(maps, all_maps[_position(chosen, all_masks)]) < 1e-9


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("propagation", ["flex", "block"])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_running_statistics_are_updated_once(fraction: float, propagation: str, momentum: float | None) -> None:
    network, given = make("residual").train(), batch()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    plain = copy.deepcopy(network)
    net = isnet.SelectiveISNet(network, _Recording(), propagation=propagation, heatmap_fraction=fraction).train()
    for _ in range(3):
        net.training_loss(*given)
        plain(given[0])
    for key, value in plain.state_dict().items():
        assert torch.allclose(network.state_dict()[key], value, rtol=1e-10), key


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("fraction", "subsets"), [(0.25, 4), (0.5, 6), (0.75, 4)])
def test_loss_of_a_part_is_the_loss_of_the_whole_on_average(fraction: float, subsets: int, training: bool) -> None:
    network, given = make("residual").train(training), batch()
    expected = isnet.OriginalISNet(network, _Recording()).training_loss(*given)
    loss = _Recording()
    net = isnet.OriginalISNet(network, loss, heatmap_fraction=fraction, generator=generator())
    found: dict[tuple[int, ...], isnet.Losses] = {}
    for _ in range(200):
        losses = net.training_loss(*given)
        subset = tuple(sorted(_position(loss.seen.pop()[1], given[1])))
        if subset in found:
            assert torch.allclose(found[subset].total, losses.total)
        found[subset] = losses
        if len(found) == subsets:
            break
    assert len(found) == subsets
    heatmap = torch.stack([losses.parts["heatmap"] for losses in found.values()])
    assert heatmap.std() > 1e-3
    assert torch.allclose(heatmap.mean(), expected.parts["heatmap"])
    total = torch.stack([losses.total for losses in found.values()]).mean()
    assert torch.allclose(total, expected.total)


def _gradient(loss: Tensor, network: nn.Module) -> Tensor:
    found = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    return torch.cat([gradient.flatten() for gradient in found])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("input_rule", ["zb", "epsilon"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("variant", [isnet.OriginalISNet, isnet.DualISNet, isnet.SelectiveISNet])
def test_gradient_of_a_part_is_that_of_the_whole_on_average(
    variant: type, network: str, input_rule: str, training: bool
) -> None:
    backbone, (images, masks, labels) = make(network).train(training), batch()
    options = {"input_rule": input_rule} | ({"layers": ("4",)} if network == "residual" else {})
    whole = variant(backbone, _Recording(), **options).training_loss(images, masks, labels).total
    net = variant(backbone, _Recording(), heatmap_fraction=0.25, generator=generator(), **options)
    found = {}
    while len(found) < 4:
        loss = net.training_loss(images, masks, labels).total
        found[round(loss.item(), 9)] = _gradient(loss, backbone)
    assert difference(torch.stack(list(found.values())).mean(0), _gradient(whole, backbone)) < 1e-9


def _standardised() -> nn.Module:
    """Batch norms of activations between batch norms of weights."""
    convolution = partial(StdConv2d, kernel_size=3, padding=1, bias=True)
    layers = [convolution(3, 5), nn.BatchNorm2d(5), nn.ReLU(), convolution(5, 6), nn.BatchNorm2d(6), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))


def _parametrised(parametrise: Callable[[nn.Module], nn.Module]) -> nn.Module:
    network = make("residual", dtype=torch.float32)
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrise(module)
    return network


_RECOMPUTED: dict[str, Callable[[], nn.Module]] = {
    "standardised": _standardised,
    "weight norm": lambda: _parametrised(parametrizations.weight_norm),
    "weight norm by hooks": lambda: _parametrised(nn.utils.weight_norm),
    "spectral norm": lambda: _parametrised(parametrizations.spectral_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("network", _RECOMPUTED)
@pytest.mark.parametrize("variant", [isnet.OriginalISNet, isnet.DualISNet])
def test_gradient_of_a_part_where_weights_are_computed_from_others(variant: type, network: str, training: bool) -> None:
    torch.manual_seed(0)
    backbone, given = _RECOMPUTED[network]().double().train(training), batch()
    state = copy.deepcopy(backbone.state_dict())

    def gradient(net: isnet.ISNet) -> tuple[float, Tensor]:
        # Spectral norm changes its buffers with each pass.
        backbone.load_state_dict(state)
        total = net.training_loss(*given).total
        return round(total.item(), 9), _gradient(total, backbone)

    _, whole = gradient(variant(backbone, _Recording()))
    net = variant(backbone, _Recording(), heatmap_fraction=0.25, generator=generator())
    found: dict[float, Tensor] = {}
    while len(found) < 4:
        found |= dict([gradient(net)])
    assert difference(torch.stack(list(found.values())).mean(0), whole) < 1e-9


@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
def test_statistics_are_those_of_the_module_that_made_them(engine: Callable) -> None:
    torch.manual_seed(0)
    network, (images, _, _) = _standardised().double().train(), batch()
    expected = engine(network)(images, isnet.JointLogits()).relevance
    with isnet.BatchStatistics() as statistics:
        network(images)
    assert difference(engine(network)(images[1:3], isnet.JointLogits(), statistics).relevance, expected[1:3]) < 1e-9
    with isnet.BatchStatistics() as fewer:
        network[:3](images)
    with isnet.BatchStatistics() as more:
        make("residual").train()(images)
        network(images)
    for other in (fewer, more):
        with pytest.raises(ValueError, match=r"(fewer|more) batch statistics than batch norms"):
            engine(network)(images, isnet.JointLogits(), other)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_is_trained(variant: type) -> None:
    network = make("residual").train()
    net = variant(network, _Recording(), heatmap_fraction=0.25, layers=("4",), generator=generator())
    net.training_loss(*batch()).total.backward()
    assert all(
        parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in network.parameters()
    )


def test_frozen_batch_norms_in_evaluation_mode_are_respected() -> None:
    network, (images, masks, labels) = make("residual").train(), batch()
    network[1].eval()
    whole, part = _Recording(), _Recording()
    isnet.OriginalISNet(copy.deepcopy(network), whole).training_loss(images, masks, labels)
    before = network[1].running_mean.clone()
    isnet.OriginalISNet(network, part, heatmap_fraction=0.5).training_loss(images, masks, labels)
    ((maps, chosen),) = part.seen
    assert difference(maps, whole.seen[0][0][_position(chosen, masks)]) < 1e-9
    assert torch.equal(network[1].running_mean, before)
