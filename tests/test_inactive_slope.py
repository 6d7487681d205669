"""Relevance of silent units: worked by hand, against slow rewrites, and by what it must leave as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import (
    NETWORKS,
    VARIANTS,
    batch,
    conv,
    damped_relu,
    difference,
    epsilon_map,
    expected_maps,
    generator,
    heatmap_loss,
    make,
    pixels,
    without_biases,
    zb_by_autograd,
)
from torch import Tensor, nn
from torch.nn import functional as F

import isnet

_SLOPE = 0.4


def _linear(*rows: tuple[float, ...], bias: float = 0.0) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        layer.bias.fill_(bias)
    return layer


def _map(network: nn.Module, image: tuple[float, ...], **options: Any) -> list[float]:
    images = torch.tensor([image], dtype=torch.float64).view(1, len(image), 1, 1)
    explain = isnet.LRPFlex(network, epsilon=0.25, **options)
    return explain(images, isnet.Logit(0)).relevance.flatten().tolist()


# ---- worked by hand ----


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5, 1.0])
def test_a_unit_that_the_background_silences_shows_what_silenced_it(slope: float, input_rule: str) -> None:
    # y = 4 relu(2 relu(f) - 3 relu(b)), f = b = 1: z = -1 is silent, and so is LRP's map. G behind the second layer is
    # 4, behind the first (2, -3) * 4 * slope; that one damps by 1 / (1 + 1/4), as a ReLU or as z^B.
    layers = [_linear((1, 0), (0, 1)), nn.ReLU(), _linear((2, -3)), nn.ReLU(), _linear((4,))]
    found = _map(nn.Sequential(nn.Flatten(), *layers), (1, 1), input_rule=input_rule, inactive_slope=slope)
    assert found == pytest.approx([8 * slope * 0.8, -12 * slope * 0.8])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("input_rule", "expected"),
    [
        # y = 2 relu(x1 - 3 x2 + 1/2), x = (1/2, 3/4): z = -5/4.
        ("epsilon", (0.5 * 2, -2.25 * 2)),  # x w G
        # R1 = z G = -5/2; z^B: z = 1/2 + 1/2 + 3 (1 - 3/4) = 7/4, s = R1 / 2; R = (x1 s, 3 (1 - x2) s).
        ("zb", (-0.625, -0.9375)),
    ],
)
def test_a_silent_unit_of_the_first_layer(input_rule: str, expected: tuple[float, ...], inplace: bool) -> None:
    network = nn.Sequential(nn.Flatten(), _linear((1, -3), bias=0.5), nn.ReLU(inplace), _linear((2,)))
    found = _map(network, (0.5, 0.75), input_rule=input_rule, inactive_slope=_SLOPE)
    assert found == pytest.approx([_SLOPE * value for value in expected])


# ---- against slow rewrites ----


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_equal_those_of_relus_that_leak_backwards(
    name: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = make(name).train(training), pixels(2, 3, 12, 10)
    explain = isnet.LRPFlex(network, 0.05, "epsilon", batch_statistics="differentiated", inactive_slope=_SLOPE)
    found = explain(images, isnet.Logit(1)).relevance[:, 0]
    expected = epsilon_map(network, images, 0.05, lambda logits: logits[:, 1], monkeypatch, _SLOPE)
    assert difference(found, expected) < 1e-10
    ordinary = epsilon_map(network, images, 0.05, lambda logits: logits[:, 1], monkeypatch)
    assert difference(ordinary, expected) > 1e-2


def _zb_map(network: nn.Sequential, images: Tensor, epsilon: float) -> Tensor:
    """Rewrite the map of logit 1 of a network that begins with a convolution and a ReLU."""
    z = network[0](images)
    entrance = z.clamp(min=0).detach().requires_grad_()
    logits = network[2:](entrance)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), entrance)
    relevance = torch.where(z > 0, z, _SLOPE * z) * gradient
    return zb_by_autograd(images, relevance, network[0], network[0].bias, 0.0, 1.0, epsilon)


@pytest.mark.parametrize("name", ["plain", "max_pool", "average_pool", "concatenation"])
def test_zb_maps_equal_a_rewrite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = make(name), pixels(2, 3, 12, 10)
    found = isnet.LRPFlex(network, 0.05, inactive_slope=_SLOPE)(images, isnet.Logit(1)).relevance[:, 0]
    monkeypatch.setattr(F, "relu", lambda z, inplace=False: damped_relu(z, 0.05, _SLOPE))
    assert difference(found, _zb_map(network, images, 0.05)) < 1e-10


def test_with_slope_one_and_no_damping_it_is_the_network_without_relus() -> None:
    network = make("plain")
    linear = nn.Sequential(*(layer for layer in network if not isinstance(layer, nn.ReLU)))
    images = pixels(2, 3, 12, 10).requires_grad_()
    found = isnet.LRPFlex(network, 1e-12, "epsilon", inactive_slope=1.0)(images, isnet.Logit(1)).relevance[:, 0]
    (gradient,) = torch.autograd.grad(linear(images)[:, 1].sum(), images)
    assert difference(found, images * gradient) < 1e-8


# ---- conservation ----


def test_what_silent_units_add_to_a_layers_relevance() -> None:
    torch.manual_seed(0)
    layers = [conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3)]
    network, images = nn.Sequential(*layers).double(), pixels(3, 2, 4, 4)
    explain = isnet.LRPFlex(network, 0.05, layers=("1", "2", "3"), inactive_slope=_SLOPE)
    below, at_z, above = (maps[:, 0] for maps in explain(images, isnet.Logit(1)).layers.values())
    z = network[:3](images)
    bias, gradient = network[2].bias.view(1, -1, 1, 1), network[5].weight[1].view(5, 4, 4)
    silent = z <= 0
    assert torch.allclose(above, z.clamp(min=0) * gradient)
    assert torch.allclose(at_z[silent], (_SLOPE * z * gradient)[silent])
    passed = torch.where(silent, _SLOPE * (z - bias) * gradient, above * (z - bias) / (z + 0.05))
    assert torch.allclose(below.flatten(1).sum(1), passed.flatten(1).sum(1))
    without_biases(network)
    _, _, found = explain(images, isnet.Logit(1))
    assert torch.allclose(*(found[name].flatten(1).sum(1) for name in ("1", "2")))


# ---- what stays as it is ----


def test_maps_of_a_network_without_silent_units_stay_bit_by_bit() -> None:
    network, images = make("plain"), pixels(2, 3, 12, 10)
    for parameter in network.parameters():
        parameter.data.abs_()
    maps = [isnet.LRPFlex(network, inactive_slope=slope)(images, isnet.EveryLogit()) for slope in (0.0, _SLOPE)]
    assert torch.equal(maps[0].relevance, maps[1].relevance)


@pytest.mark.parametrize("name", NETWORKS)
def test_zplus_maps_stay_bit_by_bit(name: str) -> None:
    network, images = make(name), pixels(2, 3, 12, 10)
    options = {"rules": ("zplus", "epsilon"), "layers": ("1",)}
    paper, found = (
        isnet.LRPFlex(network, inactive_slope=slope, **options)(images, isnet.JointLogits()) for slope in (0.0, _SLOPE)
    )
    assert torch.equal(found.logits, paper.logits)
    assert torch.equal(found.relevance[:, 0], paper.relevance[:, 0])
    assert torch.equal(found.layers["1"][:, 0], paper.layers["1"][:, 0])
    assert difference(found.relevance[:, 1], paper.relevance[:, 1]) > 1e-2


# ---- ISNets ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_isnets_optimise_these_maps(variant: type[isnet.ISNet]) -> None:
    network, (images, masks, labels) = make("residual"), batch()
    loss = isnet.HeatmapLoss((0.1, 0.1), (1.0, 1.0)) if variant is isnet.DualISNet else heatmap_loss()
    trained = variant(network, loss, inactive_slope=_SLOPE, generator=generator())
    expected = loss(expected_maps(variant, network, images, inactive_slope=_SLOPE).relevance, masks)
    assert torch.allclose(trained.training_loss(images, masks, labels).parts["heatmap"], expected)
    with pytest.raises(ValueError, match="inactive_slope is defined for propagation 'flex'"):
        variant(network, loss, propagation="block", inactive_slope=_SLOPE)


def test_the_second_of_two_passes_has_the_same_maps() -> None:
    network, images = make("residual").train(), pixels(4, 3, 12, 12)
    explain = isnet.LRPFlex(network, inactive_slope=_SLOPE)
    with isnet.FirstPass(torch.tensor([1, 3]), images.device) as first:
        network(images)
    found = explain(images[[1, 3]], isnet.Logit(1), first).relevance
    assert difference(found, explain(images, isnet.Logit(1)).relevance[[1, 3]]) < 1e-10


def test_one_step_makes_a_silenced_unit_louder() -> None:
    # The network of the first test, f the foreground. Only with a slope has the loss a gradient.
    layers = [_linear((1, 0), (0, 1)), nn.ReLU(), _linear((2, -3)), nn.ReLU(), _linear((4,))]
    network = nn.Sequential(nn.Flatten(), *layers)
    images = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    masks = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1)
    for slope in (0.0, _SLOPE):
        explain = isnet.LRPFlex(network, 0.25, inactive_slope=slope)
        loss = isnet.HeatmapLoss(1.0, 5.0)(explain(images, isnet.Logit(0)).relevance, masks)
        (gradient,) = torch.autograd.grad(loss, network[3].weight)
        # The background's weight is negative: a step against the gradient brings it nearer to 0.
        assert gradient[0, 1] == 0 if slope == 0 else gradient[0, 1] < 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"inactive_slope": -0.1}, "inactive_slope must lie"),
        ({"inactive_slope": 1.5}, "inactive_slope must lie"),
        ({"inactive_slope": float("nan")}, "inactive_slope must lie"),
        ({"inactive_slope": 0.3, "rules": ("zplus",)}, "inactive_slope needs the epsilon rule"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        isnet.LRPFlex(make("plain"), **options)
