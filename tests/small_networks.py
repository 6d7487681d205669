"""Small networks and independent rewrites for the tests of the library."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import isnet
from isnet_bench.io import torchvision_shim

# Processes that tests start know nothing of conftest.py.
torchvision_shim.ensure()

from zennit.attribution import Gradient  # noqa: E402
from zennit.composites import LayerMapComposite  # noqa: E402
from zennit.rules import Epsilon, Pass  # noqa: E402
from zennit.types import Activation, Convolution, Linear  # noqa: E402


def difference(found: Tensor, expected: Tensor) -> float:
    """Return max |found - expected| / max |expected|."""
    assert found.shape == expected.shape
    assert bool(found.isfinite().all())
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300)).item()


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """Give batch norms statistics and parameters of a trained network, some gammas negative; return the network."""
    source = generator(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=source).to(like) * (high - low) + low

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
                module.weight.copy_(uniform(module.weight, -0.5, 1.5))
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
    return network


def without_biases(network: nn.Module) -> nn.Module:
    """Remove every bias, and make batch norms purely multiplicative; return the network."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.bias = None
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.zeros_(module.bias)
            nn.init.zeros_(module.running_mean)
    return network


def conv(inputs: int, outputs: int, **options: int | bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


class Branches(nn.Module):
    """Sum or concatenation of a main branch and a shortcut."""

    def __init__(self, main: nn.Module, shortcut: nn.Module, join: str) -> None:
        super().__init__()
        self.main, self.shortcut, self.join = main, shortcut, join

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.main(x), self.shortcut(x)
        return left + right if self.join == "sum" else torch.cat([left, right], 1)


def _head(features: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * features, 3)]


def _plain() -> nn.Module:
    return nn.Sequential(conv(3, 5), nn.ReLU(), conv(5, 6, stride=2), nn.ReLU(), *_head(6))


def _max_pool() -> nn.Module:
    return nn.Sequential(
        conv(3, 5), nn.ReLU(), nn.MaxPool2d(2), conv(5, 6), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), *_head(6)
    )


def _overlapping_max_pool() -> nn.Module:
    return nn.Sequential(
        conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), nn.MaxPool2d(3, 2, 1), conv(5, 6), nn.ReLU(), *_head(6)
    )


def _average_pool() -> nn.Module:
    return nn.Sequential(
        conv(3, 5),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, 1),
        conv(5, 6),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(2),
        *_head(6),
    )


def _residual() -> nn.Module:
    def block(inputs: int, outputs: int, shortcut: nn.Module, stride: int) -> list[nn.Module]:
        main = nn.Sequential(
            conv(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        return [Branches(main, shortcut, "sum"), nn.ReLU()]

    down = nn.Sequential(nn.Conv2d(5, 6, 1, stride=2), nn.BatchNorm2d(6))
    return nn.Sequential(
        conv(3, 5), nn.BatchNorm2d(5), nn.ReLU(), *block(5, 5, nn.Identity(), 1), *block(5, 6, down, 2), *_head(6)
    )


def _concatenation() -> nn.Module:
    """Concatenated convolution outputs without a ReLU, then batch norm, as in DenseNet."""
    dense = Branches(nn.Sequential(nn.BatchNorm2d(5), nn.ReLU(), conv(5, 4)), nn.Identity(), "concatenation")
    return nn.Sequential(
        conv(3, 5),
        nn.ReLU(),
        dense,
        nn.BatchNorm2d(9),
        nn.ReLU(),
        nn.Conv2d(9, 6, 1),
        nn.AvgPool2d(2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        *_head(6),
    )


def _linear_bottleneck() -> nn.Module:
    """Convolutions and batch norms in a row without ReLUs between, grouped and strided, as in MobileNet-like nets."""
    main = nn.Sequential(
        conv(6, 6, groups=3),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 4, 1),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 1),
    )
    return nn.Sequential(
        conv(3, 6, stride=2), nn.BatchNorm2d(6), nn.ReLU(), Branches(main, nn.AvgPool2d(2), "sum"), nn.ReLU(), *_head(6)
    )


VARIANTS = (isnet.OriginalISNet, isnet.DualISNet, isnet.SelectiveISNet, isnet.StochasticISNet)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": _plain,
    "max_pool": _max_pool,
    "overlapping_max_pool": _overlapping_max_pool,
    "average_pool": _average_pool,
    "residual": _residual,
    "concatenation": _concatenation,
    "linear_bottleneck": _linear_bottleneck,
}
"""Each maps images (N, 3, H, W) to 3 logits."""


def make(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Build one of `NETWORKS` with random weights, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name]()
    return randomise(network, seed).to(dtype).eval()


def pixels(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return random images in [0, 1]."""
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def masks_of(images: Tensor, seed: int = 7) -> Tensor:
    """Return random foreground masks with both kinds of pixels."""
    number, _, height, width = images.shape
    return (pixels(number, 1, height, width, seed=seed) > 0.6).to(images.dtype)


def batch(number: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, masks and labels for one of `NETWORKS`."""
    images = pixels(number, 3, 12, 12, dtype=dtype)
    return images, masks_of(images), torch.arange(2, 2 + number) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def damped_relu(z: Tensor, epsilon: float, slope: float = 0.0) -> Tensor:
    """Rewrite LRP-Flex's ReLU with detached arithmetic alone: value relu(z), derivative a / (a + epsilon) or slope."""
    activation = z.detach().clamp(min=0)
    through = z * torch.where(z.detach() > 0, activation / (activation + epsilon), slope)
    return through + (activation - through.detach())


def epsilon_map(
    network: nn.Module,
    images: Tensor,
    epsilon: float,
    score: Callable[[Tensor], Tensor],
    monkeypatch: pytest.MonkeyPatch,
    slope: float = 0.0,
) -> Tensor:
    """Rewrite LRP-Flex's epsilon map of one score with patched ReLUs."""

    def relu(x: Tensor, inplace: bool = False) -> Tensor:
        return damped_relu(x, epsilon, slope)

    with monkeypatch.context() as patch:
        for owner, name in ((F, "relu"), (torch, "relu"), (F, "relu_"), (torch, "relu_")):
            patch.setattr(owner, name, relu)
        entrance = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(network(entrance)).sum(), entrance)
    return images * gradient


def zb_by_autograd(
    images: Tensor, relevance: Tensor, layer: nn.Conv2d, bias: Tensor | None, low: float, high: float, epsilon: float
) -> Tensor:
    """Rewrite the z^B rule for one map (N, c, h, w) with torch's own transposed convolutions."""
    weight = layer.weight
    options = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.conv2d(x, w, b, *options)

    def backward(w: Tensor) -> Tensor:
        x = images.detach().requires_grad_()
        return torch.autograd.grad(forward(x, w, None), x, s, create_graph=True)[0]

    negative, positive = weight.clamp(max=0), weight.clamp(min=0)
    # The bias is a neuron between 0 and 1, whatever the bounds of pixels.
    z = (
        forward(images, weight, None if bias is None else bias.clamp(min=0))
        - high * forward(torch.ones_like(images), negative, None)
        - low * forward(torch.ones_like(images), positive, None)
    )
    s = relevance / torch.where(z < 0, z - epsilon, z + epsilon)
    return images * backward(weight) - high * backward(negative) - low * backward(positive)


def zennit_map(network: nn.Module, images: Tensor, c: int, epsilon: float) -> Tensor:
    """Return zennit's epsilon map of logit c, for networks without batch norm."""
    network = copy.deepcopy(network)
    composite = LayerMapComposite([(Activation, Pass()), (Convolution, Epsilon(epsilon)), (Linear, Epsilon(epsilon))])
    with Gradient(network, composite) as attributor:
        _, relevance = attributor(
            images.clone(), lambda out: out * nn.functional.one_hot(torch.tensor(c), out.shape[1])
        )
    return relevance


def heatmap_loss(**options: Any) -> isnet.HeatmapLoss:
    """Return a heatmap loss with a narrow foreground range."""
    return isnet.HeatmapLoss(0.1, 1.0, **options)


def expected_maps(variant: type, network: nn.Module, images: Tensor, **options: Any) -> isnet.Explanation:
    """Return the maps that a variant optimises, straight from the engine."""
    quantity = {
        isnet.OriginalISNet: isnet.EveryLogit(),
        isnet.DualISNet: isnet.JointLogits(),
        isnet.SelectiveISNet: isnet.SoftmaxEta(),
        isnet.StochasticISNet: isnet.RandomLogit(generator=generator()),
    }
    rules = ("zplus", "epsilon") if variant is isnet.DualISNet else ("epsilon",)
    return isnet.LRPFlex(network, rules=rules, **options)(images, quantity[variant])
