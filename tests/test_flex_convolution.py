"""The convolutions of LRP-Flex take their derivatives in other ways than torch, but they are the same derivatives."""

from dataclasses import replace

import pytest
import torch
from small_networks import make, pixels
from torch import Tensor, nn
from torch.nn import functional as F

import isnet
from isnet import flex_convolution
from isnet.flex_convolution import FlexConvolution
from isnet.flex_functions import Propagation
from isnet.rules import Epsilon

LIMITS = {
    # Each way to take the weight gradient: as torch does, as a matrix product, as a convolution.
    "torch": {"_FEW_ROWS": 0, "_SMALL_IMAGE": 0},
    "matrix product": {"_FEW_ROWS": 10**6},
    "convolution": {"_FEW_ROWS": 0, "_MANY_CHANNELS": 1},
}
GEOMETRIES = [
    {"padding": 1},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (0, 2)},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
]


@pytest.fixture(params=LIMITS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {"_MANY_PRODUCTS": 0, **LIMITS[request.param]}.items():
        monkeypatch.setattr(flex_convolution, name, value)
    return request.param


@pytest.mark.parametrize("rule", [None, "epsilon"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_derivatives_are_those_of_a_convolution(way: str, geometry: dict, rule: str | None) -> None:
    torch.manual_seed(0)
    x, weight, bias = pixels(3, 4, 7, 6), torch.randn(6, 4 // geometry.get("groups", 1), 3, 3), torch.randn(6)
    inputs = [item.double().requires_grad_() for item in (x, weight, bias)]
    propagation = Propagation(frozen_statistics=True)

    def flex(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return replace(FlexConvolution.of(weight, bias, **geometry), propagation=propagation)(x)

    def derivatives(convolve: object, rule: str | None) -> list[Tensor]:
        out = convolve(*inputs)
        start = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).requires_grad_()
        propagation.rule = None if rule is None else Epsilon(1e-2)
        (first,) = torch.autograd.grad(out, inputs[0], start, create_graph=True)
        propagation.rule = None
        second = torch.autograd.grad(first.pow(3).sum() + out.pow(3).sum(), [*inputs, start], create_graph=True)
        third = torch.autograd.grad(sum(item.square().sum() for item in second), [*inputs, start])
        return [out, first, *second, *third]

    expected = derivatives(lambda x, weight, bias: F.conv2d(x, weight, bias, **geometry), None)
    for found, right in zip(derivatives(flex, rule), expected, strict=True):
        assert torch.allclose(found, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("convolution", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
def test_convolutions_of_every_dimension(way: str, convolution: type[nn.Module]) -> None:
    axes = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[convolution]
    torch.manual_seed(0)
    network = nn.Sequential(
        convolution(2, 4, 3), nn.ReLU(), convolution(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    ).double()
    images = pixels(2, 2, *(5,) * axes)
    network(images)
    logits, relevance, _ = isnet.LRPFlex(network)(images, isnet.Logit(1))
    assert torch.equal(logits, network(images))
    assert relevance.shape == (2, 1, *images.shape[1:])
    relevance.square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in network.named_parameters() if "weight" in name)


@pytest.mark.parametrize("name", ["residual", "concatenation"])
@pytest.mark.parametrize("rules", [("epsilon",), ("zplus", "epsilon")], ids=str)
def test_a_networks_heatmap_loss_has_the_same_gradients(
    way: str, rules: tuple[str, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = make(name).train(), pixels(3, 3, 10, 10)

    def gradients() -> list[Tensor]:
        explain = isnet.LRPFlex(network, rules=rules)
        logits, relevance, _ = explain(images, isnet.JointLogits())
        loss = relevance.square().sum() + logits.square().sum()
        return list(torch.autograd.grad(loss, list(network.parameters())))

    found = gradients()
    monkeypatch.setattr(flex_convolution, "_MANY_PRODUCTS", float("inf"))
    for mine, right in zip(found, gradients(), strict=True):
        assert torch.allclose(mine, right, rtol=1e-8, atol=1e-10)


def test_under_autocast_torch_convolves(way: str) -> None:
    network, images = make("residual").float().train(), pixels(3, 3, 10, 10).float()
    with torch.autocast("cpu", torch.bfloat16):
        _, relevance, _ = isnet.LRPFlex(network)(images, isnet.Logit(0))
        loss = relevance.float().square().sum()
    loss.backward()
    gradients = [parameter.grad for name, parameter in network.named_parameters() if "weight" in name]
    assert all(gradient.isfinite().all() for gradient in gradients)
