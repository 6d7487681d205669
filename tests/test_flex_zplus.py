"""The z-plus rule as a modified backward pass: against LRP-Block, fixtures, networks worked by hand, and identities.

Between two ReLUs LRP-Flex knows one positive part P of the whole affine stretch. LRP-Block gives each layer of the
stretch a rule of its own. They are the same where a stretch is one convolution or linear layer (with batch norm);
behind pools they differ by Block's extra epsilons, which vanish with epsilon; at residual sums and at batch norms that
do not follow a convolution they differ for good, because Block splits the values of the branches, LRP-Flex their
positive parts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from reference_networks import build_network, load_fixture, tensor
from small_networks import NETWORKS, Branches, conv, difference, make, pixels, randomise, without_biases
from torch import Tensor, nn
from torch.nn import functional as F

import isnet
from isnet.positive_part import Signed

_NOPOOL = "d_block_seq_nopool"
_DUAL = [key for key in load_fixture(_NOPOOL)[0] if key.startswith("block/dual/")]


def _zplus(network: nn.Module, images: Tensor, epsilon: float = 1e-2, input_rule: str = "epsilon") -> Tensor:
    return isnet.LRPFlex(network, epsilon, input_rule, rules=("zplus",))(images, isnet.JointLogits()).relevance


# ---- the authors' numbers, and LRP-Block ----


@pytest.mark.parametrize("key", _DUAL)
def test_dual_maps_of_the_reference(key: str) -> None:
    _, _, flag, epsilon, *double = key.split("/")
    dtype = torch.float64 if double else torch.float32
    arrays, meta = load_fixture(_NOPOOL)
    network, epsilon = build_network(meta, arrays, dtype=dtype), float(epsilon[1:])
    explain = isnet.LRPFlex(network, epsilon, "zb" if flag == "Zb1" else "epsilon", rules=("zplus", "epsilon"))
    logits, relevance, _ = explain(tensor(arrays, "x", dtype), isnet.JointLogits())
    expected = tensor(arrays, key, dtype)
    assert difference(relevance[:, 0], expected[:, 0]) < (1e-10 if double else 1e-5)
    # The epsilon map starts from logits in LRP-Flex, from damped ones in LRP-Block: there it sums damped maps.
    every = isnet.LRPFlex(network, epsilon, "zb" if flag == "Zb1" else "epsilon")(
        tensor(arrays, "x", dtype), isnet.EveryLogit()
    )
    damping = logits / torch.where(logits >= 0, logits + epsilon, logits - epsilon)
    assert difference((every.relevance * damping[..., None, None, None]).sum(1), expected[:, 1]) < (
        1e-10 if double else 1e-4
    )


def test_every_dual_map_without_pools_is_compared() -> None:
    assert len(_DUAL) == 2 * 2 * 2


def _grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2, groups=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, dilation=2, groups=2),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Conv2d(8, 6, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 9),
        nn.BatchNorm1d(9),
        nn.ReLU(),
        nn.Linear(9, 4),
    )


def _dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * 19 * 19, 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 7),
        nn.ReLU(),
        nn.Linear(7, 3, bias=False),
    )


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("epsilon", [1e-2, 0.5])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("build", [_grouped, _dense])
def test_maps_equal_lrp_blocks_without_sums_and_pools(
    build: Callable, seed: int, epsilon: float, input_rule: str
) -> None:
    torch.manual_seed(seed)
    network, images = randomise(build(), seed).double().eval(), pixels(3, 3, 19, 19, seed=seed)
    expected = isnet.LRPBlock(network, ("zplus",), epsilon, input_rule)(images, isnet.JointLogits()).relevance
    assert difference(_zplus(network, images, epsilon, input_rule), expected) < 1e-10


def test_maps_of_images_with_negative_pixels_equal_lrp_blocks() -> None:
    torch.manual_seed(0)
    network, images = randomise(_grouped(), 0).double().eval(), pixels(3, 3, 19, 19) - 0.5
    expected = isnet.LRPBlock(network, ("zplus",), 1e-2, "epsilon")(images, isnet.JointLogits()).relevance
    assert difference(_zplus(network, images), expected) < 1e-10


@pytest.mark.parametrize("name", ["plain", "max_pool", "overlapping_max_pool", "average_pool"])
def test_pools_differ_from_lrp_block_by_its_extra_epsilons_only(name: str) -> None:
    network, images = make(name), pixels(2, 3, 12, 12)

    def both(epsilon: float) -> float:
        expected = isnet.LRPBlock(network, ("zplus",), epsilon, "epsilon")(images, isnet.JointLogits()).relevance
        return difference(_zplus(network, images, epsilon), expected)

    assert both(1e-2) > 1e-3
    assert both(1e-10) < 1e-5


@pytest.mark.parametrize("name", ["residual", "concatenation", "linear_bottleneck"])
def test_longer_stretches_differ_from_lrp_block_for_good(name: str) -> None:
    network, images = make(name), pixels(2, 3, 12, 12)
    expected = isnet.LRPBlock(network, ("zplus",), 1e-10, "epsilon")(images, isnet.JointLogits()).relevance
    assert difference(_zplus(network, images, 1e-10), expected) > 1e-2


# ---- worked by hand ----


def _weights(layer: nn.Module, weight: list, bias: list | None = None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float32).view_as(layer.weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def test_a_residual_sum_worked_by_hand() -> None:
    # h = x = (2, 1); W h + b = (0.5, 1); z = (2.5, 2); P = W+ h + h + b+ = (4.5, 3); logit 4.5 damped: G = 0.9.
    main = _weights(nn.Linear(2, 2), [[1, -2], [0.5, 1]], [0.5, -1])
    network = nn.Sequential(
        nn.Flatten(),
        _weights(nn.Linear(2, 2, bias=False), [[1, 0], [0, 1]]),
        nn.ReLU(),
        Branches(main, nn.Identity(), "sum"),
        nn.ReLU(),
        _weights(nn.Linear(2, 1, bias=False), [[1, 1]]),
    )
    found = _zplus(network, torch.tensor([2.0, 1.0]).view(1, 2, 1, 1), 0.5)
    first, second = 0.9 * 2.5 / 5, 0.9 * 2 / 3.5
    expected = [2 * 2 / 2.5 * (2 * first + 0.5 * second), 1 / 1.5 * 2 * second]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_two_linear_layers_without_a_relu_between_worked_by_hand() -> None:
    # x = (1, 1); P1 = (x1, 2 x1 + x2), N1 = (-x2, 0); P = -N1[0] + P1[1] = 2 x1 + 2 x2 = 4, N = -1, z = 3.
    network = nn.Sequential(
        nn.Flatten(),
        _weights(nn.Linear(2, 2, bias=False), [[1, -1], [2, 1]]),
        _weights(nn.Linear(2, 1, bias=False), [[-1, 1]]),
        nn.ReLU(),
        _weights(nn.Linear(1, 1, bias=False), [[1]]),
    )
    found = _zplus(network, torch.ones(1, 2, 1, 1), 0.5)
    assert found.flatten().tolist() == pytest.approx([2 * 3 / 4.5 * 3 / 3.5] * 2)


def test_a_negative_scale_swaps_the_parts_worked_by_hand() -> None:
    # x = (1, 3); convolution P = 1, N = -3, B = 1, so -1; the pool keeps it; times -2 and plus 1 it is
    # P = 6, N = -2, B = -1, z = 3.
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = _weights(nn.Conv2d(2, 1, 1), [1, -1], [1.0])
            self.last = _weights(nn.Linear(1, 1, bias=False), [[1]])

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(F.avg_pool2d(self.first(x), 1) * -2 + 1).flatten(1))

    found = _zplus(Network(), torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), 0.5)
    # dP/dx = (0, 2); the virtual output is the logit 3.
    assert found.flatten().tolist() == pytest.approx([0, 3 * 2 * 3 / 6.5 * 3 / 3.5])


# ---- identities ----


class _Operations(nn.Module):
    """A stretch of many linear operations between two ReLUs."""

    def __init__(self, stretch: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.third, self.last = conv(3, 4), conv(4, 4), conv(4, 4), nn.LazyLinear(3)
            self.norm, self.linear = nn.BatchNorm2d(4), nn.Linear(8, 8)
            self.stretch = stretch
            self.double()(pixels(2, 3, 8, 8))
        randomise(self, 0).double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.stretch(self, F.relu(self.first(x)))).flatten(1))


_STRETCHES: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "difference": lambda net, x: net.second(x) - x,
    "difference of two": lambda net, x: net.second(x) - net.norm(net.third(x)),
    "activation minus value": lambda net, x: x - net.second(x),
    "minus one": lambda net, x: net.second(x) + x - 0.1,
    "number minus value": lambda net, x: 0.3 - net.second(x),
    "division": lambda net, x: net.second(x) / -3.0 + x,
    "negative scale per channel": lambda net, x: (
        net.second(x) * torch.linspace(-1, 1, 4, dtype=x.dtype).view(1, -1, 1, 1)
    ),
    "concatenation with zeros": lambda net, x: net.third(
        torch.cat([net.second(x)[:, :2], torch.zeros(len(x), 2, 8, 8).double()], 1)
    ),
    "chunks": lambda net, x: torch.cat(net.second(x).chunk(2, 1)[::-1], 1) + x,
    "split and shuffle": lambda net, x: F.channel_shuffle(net.second(x), 2).permute(0, 1, 3, 2),
    "view": lambda net, x: net.third(net.second(x).view(len(x), 2, 2, 8, 8).transpose(1, 2).reshape(len(x), 4, 8, 8)),
    "view at once": lambda net, x: net.second(x).view(len(x), -1),
    "max pool": lambda net, x: F.max_pool2d(net.second(x), 3, 2, 1),
    "adaptive max pool": lambda net, x: F.adaptive_max_pool2d(net.second(x), 3),
    "amax": lambda net, x: net.second(x).amax((-2, -1)),
    "max of rearranged pixels": lambda net, x: (
        net.second(x).flatten(2).max(dim=2, keepdim=True)[0] + x.mean((2, 3))[..., None]
    ),
    "stack": lambda net, x: torch.stack([net.second(x), x, net.third(x)], 2).mean(2),
    "average pool, then convolution": lambda net, x: net.third(F.avg_pool2d(net.norm(net.second(x)), 2)),
    "adaptive average pool": lambda net, x: F.adaptive_avg_pool2d(net.second(x), 3),
    "upsampling": lambda net, x: (
        F.interpolate(net.second(x), scale_factor=2.0, mode="bilinear") + F.interpolate(x, size=16)
    ),
    "bicubic upsampling": lambda net, x: net.third(F.interpolate(net.second(x), scale_factor=1.5, mode="bicubic")),
    "bicubic upsampling of activations": lambda net, x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "padding": lambda net, x: net.third(F.pad(net.second(x), (1, 2, 0, 1))),
    "linear over the last dimension": lambda net, x: net.linear(x),
    "linear layers over the last dimension": lambda net, x: net.linear(net.linear(net.second(x))),
    "linear layers over three dimensions": lambda net, x: net.linear(
        net.linear(x.flatten(1, 2)).transpose(1, 2).transpose(1, 2)
    ),
    "batch norms in a row": lambda net, x: net.norm(net.norm(net.second(x))),
    "batch norm of an activation": lambda net, x: net.norm(x),
    "batch norm of a sum": lambda net, x: net.norm(net.second(x) + x),
    "convolutions in a row": lambda net, x: net.third(net.norm(net.second(x))) + net.second(x),
    "sum of three": lambda net, x: sum([net.second(x), net.third(x), x]),
    "in-place sum": lambda net, x: net.second(x).add_(x),
}


@pytest.mark.parametrize("name", [*NETWORKS, *_STRETCHES])
def test_values_are_sums_of_a_positive_a_negative_and_a_constant_part(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make(name) if name in NETWORKS else _Operations(_STRETCHES[name])
    images, seen = pixels(3, 3, 8, 8), []
    original = Signed.denominator

    def checked(self: Signed, value: Tensor) -> Tensor:
        found = original(self, value)
        positive, negative, bias = self.parts(value)
        seen.append(value)
        bias = torch.zeros_like(value) if bias is None else bias.expand_as(value)
        tolerance = 1e-12 * value.abs().max()
        assert positive.min() >= -tolerance
        assert negative.max() <= tolerance
        assert (positive + negative + bias - value).abs().max() <= tolerance
        assert (found - positive - bias.clamp(min=0)).abs().max() <= tolerance
        if "max" not in name:
            assert (bias - bias[:1]).abs().max() <= tolerance
        return found

    monkeypatch.setattr(Signed, "denominator", checked)
    try:
        relevance = _zplus(network, images)
    except isnet.UnsupportedNetworkError:
        assert name.startswith("bicubic")
        return
    assert seen
    assert bool(relevance.isfinite().all())
    assert bool(relevance.any())


@pytest.mark.parametrize("name", _STRETCHES)
def test_epsilon_maps_of_the_same_operations_are_gradients_times_input(name: str) -> None:
    network, images = _Operations(_STRETCHES[name]), pixels(2, 3, 8, 8)
    found = isnet.LRPFlex(network, 1e-13, "epsilon")(images, isnet.JointLogits()).relevance
    entrance = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(entrance).sum(), entrance)
    assert difference(found[:, 0], images * gradient) < 1e-8


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_linear_layers_over_three_dimensions_equal_convolutions(scale: float) -> None:
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self, as_convolution: bool) -> None:
            super().__init__()
            self.as_convolution = as_convolution
            self.first, self.a, self.b, self.last = conv(3, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x)).flatten(2)[..., :8]
            for layer in (self.a, self.b):
                if self.as_convolution:
                    x = F.conv1d(x, scale * layer.weight[..., None], layer.bias)
                else:
                    x = F.linear(x.transpose(1, 2), scale * layer.weight, layer.bias).transpose(1, 2)
            return self.last(F.relu(x).mean(2))

    plain, tokens = Tokens(True).double(), Tokens(False).double()
    tokens.load_state_dict(plain.state_dict())
    images = pixels(2, 3, 4, 4)
    assert torch.allclose(tokens(images), plain(images))
    assert difference(_zplus(tokens, images), _zplus(plain, images)) < 1e-10


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("before", ["value", "activation"])
def test_upsampling_equals_its_matrix_or_is_refused(mode: str, before: str) -> None:
    basis = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    matrix = F.interpolate(basis, scale_factor=1.5, mode=mode).flatten(1).T
    ways: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.interpolate(x, scale_factor=1.5, mode=mode),
        lambda x: F.linear(x.flatten(2), matrix).view(len(x), -1, 12, 12),
    ]
    networks = [
        _Operations(lambda net, x, way=way: net.third(way(net.second(x) if before == "value" else x))) for way in ways
    ]
    images = pixels(2, 3, 8, 8)
    assert torch.allclose(networks[0](images), networks[1](images))
    expected = _zplus(networks[1], images)
    try:
        found = _zplus(networks[0], images)
    except isnet.UnsupportedNetworkError:
        if mode != "bicubic":
            raise
        return
    assert difference(found, expected) < 1e-10


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_of_the_virtual_outputs_is_conserved_without_biases(name: str, input_rule: str) -> None:
    network, images = without_biases(make(name)), pixels(2, 3, 16, 12)
    head = network[-1]
    features = network[:-1](images)
    virtual = F.linear(features, head.weight.clamp(min=0)).sum(1)
    relevance = _zplus(network, images, 1e-13, input_rule)
    assert difference(relevance.sum((2, 3, 4))[:, 0], virtual) < 1e-6
    if input_rule == "epsilon":
        assert relevance.min() >= -1e-12


def test_relevance_is_conserved_between_supervised_activations() -> None:
    network, images = without_biases(make("residual")), pixels(2, 3, 16, 12)
    explain = isnet.LRPFlex(network, 1e-13, rules=("zplus",), layers=("2", "4", "6"))
    _, relevance, layers = explain(images, isnet.JointLogits())
    for name, at_layer in layers.items():
        assert difference(at_layer.flatten(2).sum(2), relevance.flatten(2).sum(2)) < 1e-6, name
