"""Which first layers the z^B rule of LRP-Flex follows, and which it refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from small_networks import conv, difference, pixels, randomise
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

import isnet


def _images(size: int = 8) -> Tensor:
    return pixels(2, 3, size, size, dtype=torch.float32)


class _Stem(nn.Module):
    def __init__(self, stem: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm, self.last = conv(3, 4), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.stem = stem

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(self, x)
        return self.last(F.relu(x).mean((2, 3)))


def _column(net: nn.Module, x: Tensor) -> Tensor:
    return F.conv2d(x, net.first.weight[..., 1:2], padding=(1, 0))


def _row(net: nn.Module, x: Tensor) -> Tensor:
    return F.conv2d(x, net.first.weight[:, :, 1:2], padding=(0, 1))


@pytest.mark.parametrize(
    ("stem", "met"),
    [
        (lambda net, x: net.first(F.avg_pool2d(x, 2)), "avg_pool2d"),
        (lambda net, x: net.first(F.max_pool2d(x, 2)), "max_pool2d"),
        (lambda net, x: net.first(x * x.new_ones(x.shape)) + x.mean(), "mean"),
        (lambda net, x: net.first(x + x.roll(1, 1)), "add"),
        (lambda net, x: net.first(x) * torch.ones(2, 4, 8, 8), "mul"),
        (lambda net, x: net.first(x) - net.first(x.flip(3)), "sub"),
        (lambda net, x: net.first(x) + net.first(x.flip(3)), "add"),
        (lambda net, x: _column(net, x) + _row(net, x), "add"),
        (lambda net, x: net.norm(net.norm(net.first(x))), "batch_norm"),
        (lambda net, x: torch.cat([net.first(F.relu(net.first(x))[:, :3]), x[:, :1]], 1)[:, :4], "cat"),
        (lambda net, x: net.first(F.relu(x)), "relu"),
    ],
)
def test_zb_rule_refuses_other_first_layers_and_names_the_remedy(stem: Callable, met: str) -> None:
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"input_rule='epsilon'") as refusal:
        isnet.LRPFlex(_Stem(stem))(_images(), isnet.Logit(0))
    assert met in str(refusal.value)
    assert isnet.LRPFlex(_Stem(stem), input_rule="epsilon")(_images(), isnet.Logit(0)).relevance.any()


class _Frozen(nn.Module):
    """Batch norm as torchvision's FrozenBatchNorm2d writes it."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        self.scale, self.shift = (
            values.detach().view(1, -1, 1, 1) for values in (scale, norm.bias - norm.running_mean * scale)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def _added(net: nn.Module, x: Tensor, **options: Any) -> Tensor:
    """Add what the middle column, the middle and the whole of a kernel make of the images."""
    whole, spacing = net.first.weight, options.get("dilation", 1)
    column = F.conv2d(x, whole[..., 1:2], padding=(spacing, 0), **options)
    column += F.conv2d(x, whole[..., 1:2, 1:2], net.first.bias, **options)
    return column + net.norm(F.conv2d(x, whole, net.first.bias, padding=spacing, **options))


def _fused_sum(net: nn.Module, x: Tensor, **options: Any) -> Tensor:
    scale = net.norm.weight * (net.norm.running_var + net.norm.eps).rsqrt()
    weight = net.first.weight * scale.view(-1, 1, 1, 1)
    weight = weight + F.pad(net.first.weight[..., 1:2], (1, 1)) + F.pad(net.first.weight[..., 1:2, 1:2], (1,) * 4)
    bias = net.norm.bias + (net.first.bias - net.norm.running_mean) * scale + net.first.bias
    return F.conv2d(x, weight, bias, padding=options.get("dilation", 1), **options)


_MEAN, _STD = (torch.tensor(values).double().view(3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.5]))
_STEMS: dict[str, tuple[Callable, Callable]] = {
    "padding in front": (
        lambda net, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), *net.first.parameters()),
        lambda net, x: net.first(x),
    ),
    "another type": (lambda net, x: net.first(x.float().to(torch.float64)), lambda net, x: net.first(x)),
    "swapped channels": (
        lambda net, x: net.first(torch.cat([x[:, 2:], x[:, [1, 0]].clone()], 1)),
        lambda net, x: F.conv2d(x, net.first.weight.flip(1), net.first.bias, padding=1),
    ),
    "max pool": (
        lambda net, x: F.max_pool2d(net.first(x), 3, 2, 1),
        lambda net, x: F.max_pool2d(F.relu(net.first(x)), 3, 2, 1),
    ),
    "max pool, then batch norm": (
        lambda net, x: net.norm(F.max_pool2d(net.first(x), 2)),
        lambda net, x: F.max_pool2d(F.relu(net.norm(net.first(x))), 2),
    ),
    "sum of layers": (_added, _fused_sum),
    "sum of layers that leap": (partial(_added, stride=2, dilation=2), partial(_fused_sum, stride=2, dilation=2)),
    "frozen batch norm": (lambda net, x: _Frozen(net.norm)(net.first(x)), lambda net, x: net.norm(net.first(x))),
}


@pytest.mark.parametrize("rules", [("epsilon",), ("zplus", "epsilon")])
@pytest.mark.parametrize("name", _STEMS)
def test_zb_rule_follows_other_ways_to_write_the_first_layer(name: str, rules: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    images, (written, plain) = pixels(2, 3, 8, 8), _STEMS[name]
    networks = [_Stem(stem).double().eval() for stem in (written, plain)]
    networks[0].norm.weight.data.uniform_(0.5, 1.5)
    networks[0].norm.bias.data.uniform_(-0.3, 0.3)
    networks[1].load_state_dict(networks[0].state_dict())
    # With the max pool, the plain network has one ReLU more, which damps once more: not so with a small epsilon.
    epsilon = 1e-10 if "max pool" in name else 1e-2
    found, expected = (
        isnet.LRPFlex(network, epsilon, rules=rules)(images, isnet.JointLogits()) for network in networks
    )
    assert difference(found.logits, expected.logits) < 1e-6
    assert difference(found.relevance, expected.relevance) < 1e-6


@pytest.mark.parametrize("rules", [("epsilon",), ("zplus", "epsilon")])
def test_zb_rule_follows_a_normalisation_inside_the_network(rules: tuple[str, ...]) -> None:
    low, high = isnet.pixel_bounds(_MEAN.flatten().tolist(), _STD.flatten().tolist())
    images, inside = pixels(2, 3, 8, 8), _Stem(lambda net, x: net.first((x - _MEAN).div_(_STD))).double()
    plain = _Stem(lambda net, x: net.first(x)).double()
    plain.load_state_dict(inside.state_dict())
    found = isnet.LRPFlex(inside, rules=rules)(images, isnet.JointLogits()).relevance
    explain = isnet.LRPFlex(plain, rules=rules, low=low, high=high)
    assert difference(found, explain((images - _MEAN) / _STD, isnet.JointLogits()).relevance) < 1e-10
    loss = isnet.HeatmapLoss(0.1, 1.0)(found, (images[:, :1] > 0.5).double())
    assert torch.autograd.grad(loss, inside.first.weight)[0].any()


@pytest.mark.parametrize(
    "colour",
    [
        lambda x: x.repeat(1, 3, 1, 1),
        lambda x: x.expand(-1, 3, -1, -1),
        lambda x: torch.cat([x, x, x], 1),
        lambda x: x[:, [0, 0, 0]],
        lambda x: (torch.cat((x, x, x), dim=1) - 0.25) * 4 / 4 + 0.25,
    ],
)
def test_zb_rule_follows_grey_images_turned_to_colour(colour: Callable[[Tensor], Tensor]) -> None:
    grey = pixels(2, 1, 8, 8)
    network = _Stem(lambda net, x: net.first(colour(x))).double()
    plain = _Stem(lambda net, x: net.first(x)).double()
    plain.load_state_dict(network.state_dict())
    expected = isnet.LRPFlex(plain)(grey.repeat(1, 3, 1, 1), isnet.EveryLogit()).relevance.sum(2, keepdim=True)
    assert difference(isnet.LRPFlex(network)(grey, isnet.EveryLogit()).relevance, expected) < 1e-10


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s0"])
def test_summed_first_layers_are_those_of_the_network_that_timm_makes_of_them(name: str) -> None:
    network = timm.create_model(name, num_classes=2)
    if name == "repvgg_a0":
        network.stages = nn.Sequential(network.stages[0])
        network.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 2))
    network, images = randomise(network, 0).double().eval(), pixels(2, 3, 32, 32)
    found = isnet.LRPFlex(network)(images, isnet.Logit(1))
    expected = isnet.LRPFlex(reparameterize_model(network))(images, isnet.Logit(1))
    assert difference(found.logits, expected.logits) < 1e-9
    assert difference(found.relevance, expected.relevance) < 1e-9
