"""LRP-Flex against networks worked by hand, independent rewrites, zennit, and conservation of relevance."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import (
    NETWORKS,
    conv,
    difference,
    epsilon_map,
    make,
    pixels,
    randomise,
    without_biases,
    zb_by_autograd,
    zennit_map,
)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import isnet

# ---- worked by hand: two pixels, one neuron y = 2 relu(3 x1 - x2 + b) + 1 ----


def _neuron(bias: float, kind: str) -> nn.Module:
    first = nn.Conv2d(2, 1, 1) if kind == "convolution" else nn.Linear(2, 1)
    last = nn.Linear(1, 1)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([3.0, -1.0]).view(first.weight.shape))
        first.bias.fill_(bias)
        last.weight.fill_(2)
        last.bias.fill_(1)
    layers = [first, nn.ReLU(), nn.Flatten(), last] if kind == "convolution" else [nn.Flatten(), first, nn.ReLU(), last]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (0.5, (4.5, -3.0)),  # z = a = 1.5; R = x w 2 a / (a + 0.5) = x w 1.5
        (-0.5, (3.0, -2.0)),  # z = a = 0.5; R = x w 2 * 0.5 / (0.5 + 0.5)
        (-2.0, (0.0, 0.0)),  # the neuron is silent
    ],
)
def test_epsilon_rule_worked_by_hand(kind: str, bias: float, expected: tuple[float, float]) -> None:
    images = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    explain = isnet.LRPFlex(_neuron(bias, kind), epsilon=0.5, input_rule="epsilon")
    assert explain(images, isnet.Logit(0)).relevance.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        # P = 3 + max(b, 0); virtual output 2 a + 1, damped; R = x w+ a / (P + 0.5) * 2 (2 a + 1) / (2 a + 1.5).
        (0.5, 3 * 1.5 / 4 * 2 * 4 / 4.5),
        (-0.5, 3 * 0.5 / 3.5 * 2 * 2 / 2.5),
    ],
)
def test_zplus_rule_worked_by_hand(kind: str, bias: float, expected: float) -> None:
    images = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    explain = isnet.LRPFlex(_neuron(bias, kind), epsilon=0.5, input_rule="epsilon", rules=("zplus",))
    assert explain(images, isnet.JointLogits()).relevance.flatten().tolist() == pytest.approx([expected, 0.0])


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize(
    ("low", "bias", "epsilon", "expected"),
    [
        # x = (1/2, 1/4): R1 = 2 a, z = a - b- - h w- - l w+, s = R1 / (z + e), R = x w s - h w- s - l w+ s
        (0.0, 0.5, 0.25, (1.75, 0.875)),  # a = 1.75, z = 2.75, s = 7/6
        (0.0, -0.5, 0.25, (0.9, 0.45)),  # a = 0.75, z = 2.25, s = 0.6
        (-1.0, 0.5, 1.25, (2.25, 0.375)),  # a = 1.75, z = 5.75, s = 0.5
        (-1.0, -0.5, 0.75, (1.125, 0.1875)),  # a = 0.75, z = 5.25, s = 0.25
    ],
)
def test_zb_rule_worked_by_hand(
    kind: str, low: float, bias: float, epsilon: float, expected: tuple[float, float]
) -> None:
    images = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    explain = isnet.LRPFlex(_neuron(bias, kind), epsilon=epsilon, low=low)
    assert explain(images, isnet.Logit(0)).relevance.flatten().tolist() == pytest.approx(expected)


def test_zb_rule_uses_the_upper_bound_of_pixels() -> None:
    # h = 2, b = 0.5: a = 1.75, z = a - 2 (-1) = 3.75, s = 3.5 / 4, R = x w s - 2 w- s.
    images = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    found = isnet.LRPFlex(_neuron(0.5, "convolution"), epsilon=0.25, high=2.0)(images, isnet.Logit(0)).relevance
    assert found.flatten().tolist() == pytest.approx((1.5 * 0.875, 1.75 * 0.875))


@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
@pytest.mark.parametrize("unit", [1.0, 10.0, 255.0])
@pytest.mark.parametrize("shift", [0.0, -0.4])
def test_zb_rule_does_not_depend_on_the_unit_of_pixels(engine: Callable, unit: float, shift: float) -> None:
    # One pixel x = 0.8, weight 1, bias -0.3: a = 0.5, R = (x - l) a / (x - l).
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        network[0].weight.fill_(1 / unit)
        network[0].bias.fill_(-0.3)
        network[3].weight.fill_(1)
    images = torch.full((1, 1, 1, 1), 0.8 * unit, dtype=torch.float64)
    explain = engine(network, rules=("epsilon",), epsilon=1e-9, low=shift * unit, high=unit)
    assert explain(images, isnet.Logit(0)).relevance.item() == pytest.approx(0.5)


@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
@pytest.mark.parametrize("at", [0, 1])
def test_bounds_per_channel_belong_to_the_unit_of_each_channel(engine: Callable, at: int) -> None:
    # relu(w x + b) and relu(w' x' + b) with x' = x / unit, w' = w unit are the same function, and have the same map.
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    network, images = (make("plain"), dense.double())[at], pixels(2, 3, 8, 8) * 1.5 - 0.5
    scaled, unit = copy.deepcopy(network), torch.tensor([0.2, 1.0, 30.0], dtype=torch.float64)
    weight = scaled[at].weight.data.view(len(scaled[at].weight), 3, -1)
    weight.mul_(unit.view(3, 1))
    options = {"rules": ("epsilon",), "strict": True}
    expected = engine(network, low=-0.5, high=1.0, **options)(images, isnet.Logit(0))
    explain = engine(scaled, low=-0.5 / unit, high=(1 / unit).tolist(), **options)
    found = explain(images / unit.view(3, 1, 1), isnet.Logit(0))
    assert difference(found.relevance, expected.relevance) < 1e-12
    assert isnet.pixel_bounds((0.5, 0.2), (0.25, 0.1)) == ([-2.0, -2.0], [2.0, 8.0])


@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
def test_images_outside_the_bounds_are_told_once_or_refused(engine: Callable) -> None:
    network, images = make("plain"), pixels(2, 3, 8, 8) * 255
    explain = engine(network)
    with pytest.warns(UserWarning, match=r"between .* and 25\d.*, outside the bounds .*isnet\.pixel_bounds"):
        explain(images, isnet.JointLogits())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(images, isnet.JointLogits())
        engine(network, high=255.0)(images, isnet.JointLogits())
        engine(network, input_rule="epsilon")(images, isnet.JointLogits())
        engine(network)(images / 255 + 1e-6, isnet.JointLogits())
    with pytest.raises(ValueError, match="outside the bounds"):
        engine(network, strict=True)(images, isnet.JointLogits())
    with pytest.raises(ValueError, match="high has 2 channels, but the images have 3"):
        engine(network, high=[1.0, 1.0])(images / 255, isnet.JointLogits())


# ---- independent rewrites ----


def _matrix_lrp(layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray, c: int, epsilon: float) -> np.ndarray:
    """LRP of one image through dense layers: epsilon rule with one epsilon per ReLU, LRP-0 at the output."""
    activations = [x]
    for weight, bias in layers[:-1]:
        activations.append(np.maximum(weight @ activations[-1] + bias, 0))
    relevance = activations[-1] * layers[-1][0][c]
    for (weight, bias), a in zip(layers[-2::-1], activations[-2::-1], strict=True):
        z = weight @ a + bias
        relevance = a * (weight.T @ np.where(z > 0, relevance / (z + epsilon), 0))
    return relevance


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("epsilon", [1e-9, 1e-2, 1.0])
def test_epsilon_rule_equals_its_matrix_form(seed: int, epsilon: float) -> None:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 9),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Linear(9, 8),
        nn.ReLU(),
        nn.Linear(8, 7, bias=False),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Linear(7, 4),
    ).double()
    randomise(network, seed).eval()
    images = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    found = isnet.LRPFlex(network, epsilon, input_rule="epsilon")(images, isnet.EveryLogit()).relevance

    def dense(linear: nn.Linear, norm: nn.BatchNorm1d | None = None) -> tuple[np.ndarray, np.ndarray]:
        weight = linear.weight
        bias = torch.zeros(len(weight), dtype=torch.float64) if linear.bias is None else linear.bias
        if norm is not None:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight, bias = weight * scale[:, None], (bias - norm.running_mean) * scale + norm.bias
        return weight.detach().numpy(), bias.detach().numpy()

    layers = [dense(network[1], network[2]), dense(network[4]), dense(network[6], network[7]), dense(network[9])]
    for image in range(3):
        for c in range(4):
            expected = _matrix_lrp(layers, images[image].flatten().numpy(), c, epsilon)
            assert difference(found[image, c].flatten(), torch.from_numpy(expected)) < 1e-10


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_epsilon_maps_equal_a_rewrite_with_detached_damping(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = make(name, seed), pixels(2, 3, 13, 10, seed=seed)
    found = isnet.LRPFlex(network, 0.05, input_rule="epsilon")(images, isnet.Logit(1)).relevance
    expected = epsilon_map(network, images, 0.05, lambda logits: logits[:, 1], monkeypatch)
    assert difference(found[:, 0], expected) < 1e-10


@pytest.mark.parametrize("low", [0.0, -0.7])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "size"),
    [
        (1, 1, 1, 1, (8, 8)),
        (2, 3, 1, 1, (17, 12)),
        (3, 0, 2, 1, (19, 16)),
        (2, (0, 2), 1, 3, (11, 14)),
        (4, 2, 1, 1, (13, 15)),
    ],
)
def test_zb_rule_equals_a_rewrite_for_any_convolution(
    stride: int, padding: int, dilation: int, groups: int, size: tuple[int, int], low: float
) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3, stride, padding, dilation, groups)
    network = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)).double()
    images = pixels(2, 3, *size) * (1 - low) + low
    _, found, layers = isnet.LRPFlex(network, low=low, layers=("1",))(images, isnet.Logit(2))
    expected = zb_by_autograd(images, layers["1"][:, 0], first, first.bias, low, 1.0, 1e-2)
    assert difference(found[:, 0], expected) < 1e-10


@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_by_name_is_padding_by_number(kernel: int) -> None:
    torch.manual_seed(0)
    by_name = nn.Sequential(
        nn.Conv2d(3, 4, kernel, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    ).double()
    by_number = copy.deepcopy(by_name)
    by_number[0].padding = (kernel // 2, kernel // 2)
    images = pixels(2, 3, 8, 8)
    found, expected = (isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance for network in (by_name, by_number))
    assert difference(found, expected) < 1e-12


def test_two_first_layers_share_the_relevance() -> None:
    torch.manual_seed(0)

    class TwoStems(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.head = conv(3, 4), nn.Conv2d(3, 5, 5, padding=2), nn.Linear(9, 3)
            self.a, self.b = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.a(self.left(x)), self.b(self.right(x))], 1).mean((2, 3)))

    network, images = TwoStems().double(), pixels(2, 3, 8, 8)
    _, found, layers = isnet.LRPFlex(network, layers=("a", "b"))(images, isnet.Logit(0))
    expected = sum(
        zb_by_autograd(images, layers[name][:, 0], stem, stem.bias, 0.0, 1.0, 1e-2)
        for name, stem in (("a", network.left), ("b", network.right))
    )
    assert difference(found[:, 0], expected) < 1e-10


# ---- zennit ----


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("epsilon", [1e-2, 1e-1])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_epsilon_maps_equal_zennits(seed: int, epsilon: float, pool: bool, norm: bool) -> None:
    torch.manual_seed(seed)
    layers = [conv(3, 6).double().eval(), conv(6, 8, stride=2).double().eval()]
    norms = [randomise(nn.BatchNorm2d(width), seed).double().eval() for width in (6, 8)]
    last = nn.Linear(8 * (2 if pool else 8) ** 2, 4).double()

    def assembled(layers: list[nn.Module]) -> nn.Module:
        pooled = [nn.MaxPool2d(2)] if pool else []
        return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU(), *pooled)), nn.Flatten(), last)

    images = pixels(2, 3, 16, 16, seed=seed)
    if norm:
        plain = assembled([nn.Sequential(*pair) for pair in zip(layers, norms, strict=True)])
        merged = assembled([fuse_conv_bn_eval(*pair) for pair in zip(layers, norms, strict=True)])
    else:
        plain = merged = assembled(layers)
    logits, relevance, _ = isnet.LRPFlex(plain, epsilon, input_rule="epsilon")(images, isnet.EveryLogit())
    for c in range(4):
        y = logits[:, c].view(-1, 1, 1, 1)
        output_damping = y / torch.where(y >= 0, y + epsilon, y - epsilon)
        assert difference(output_damping * relevance[:, c], zennit_map(merged, images, c, epsilon)) < 1e-10


# ---- conservation ----


@pytest.mark.parametrize("rule", ["epsilon", "zb"])
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_is_conserved_without_biases(name: str, rule: str) -> None:
    network, images = without_biases(make(name)), pixels(2, 3, 16, 12)
    logits, relevance, _ = isnet.LRPFlex(network, 1e-13, rule)(images, isnet.EveryLogit())
    assert difference(relevance.sum((2, 3, 4)), logits) < 1e-6


@pytest.mark.parametrize("low", [0.0, -2.0])
def test_zb_rule_conserves_relevance_for_any_range_of_pixels(low: float) -> None:
    network = without_biases(make("plain"))
    images = pixels(2, 3, 9, 11) * (3 - low) + low
    logits, relevance, _ = isnet.LRPFlex(network, 1e-13, low=low, high=3.0)(images, isnet.EveryLogit())
    assert difference(relevance.sum((2, 3, 4)), logits) < 1e-6


def test_relevance_is_conserved_between_supervised_layers() -> None:
    network, images = without_biases(make("residual")), pixels(2, 3, 16, 12)
    logits, _, layers = isnet.LRPFlex(network, 1e-13, layers=("2", "4", "6", "7"))(images, isnet.EveryLogit())
    for name, relevance in layers.items():
        assert difference(relevance.flatten(2).sum(2), logits) < 1e-6, name


def test_biases_absorb_relevance() -> None:
    network, images = make("plain"), pixels(2, 3, 9, 11)
    logits, relevance, _ = isnet.LRPFlex(network, 1e-13, "epsilon")(images, isnet.EveryLogit())
    assert difference(relevance.sum((2, 3, 4)), logits) > 1e-2


def test_zb_rule_sees_relevance_on_black_pixels() -> None:
    network, images = make("plain"), torch.zeros(1, 3, 9, 9, dtype=torch.float64)
    with_range = isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance
    assert with_range.abs().max() > 0
    assert not isnet.LRPFlex(network, input_rule="epsilon")(images, isnet.Logit(0)).relevance.any()


# ---- quantities ----


@pytest.mark.parametrize("rule", ["epsilon", "zb"])
@pytest.mark.parametrize("engine", [isnet.LRPFlex, isnet.LRPBlock])
def test_maps_are_linear_in_the_explained_quantity(engine: Callable, rule: str) -> None:
    explain, images = engine(make("residual"), input_rule=rule, rules=("epsilon",)), pixels(3, 3, 12, 12)
    logits, every, _ = explain(images, isnet.EveryLogit())
    assert every.shape == (3, 3, 3, 12, 12)
    labels = torch.tensor([2, 0, 1])
    assert difference(explain(images, isnet.Logit(labels)).relevance[:, 0], every[range(3), labels]) < 1e-12
    assert difference(explain(images, isnet.JointLogits()).relevance, every.sum(1, keepdim=True)) < 1e-12
    if engine is isnet.LRPBlock:
        # It sends eta through a difference layer instead.
        return
    leaf = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(isnet.SoftmaxEta().scores(leaf).sum(), leaf)
    eta = explain(images, isnet.SoftmaxEta()).relevance[:, 0]
    assert difference(eta, torch.einsum("nc,ncdhw->ndhw", gradient, every)) < 1e-10


def test_random_logit_explains_what_it_draws() -> None:
    explain, images = isnet.LRPFlex(make("plain")), pixels(6, 3, 10, 10)
    logits, every, _ = explain(images, isnet.EveryLogit())
    drawn = isnet.RandomLogit(generator=torch.Generator().manual_seed(5)).classes(logits)[:, 0]
    found = explain(images, isnet.RandomLogit(generator=torch.Generator().manual_seed(5))).relevance[:, 0]
    assert difference(found, every[range(6), drawn]) < 1e-12
