"""LRP-Flex on the many ways to write the same ReLU network, and its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import conv, difference, make, masks_of, pixels, randomise, without_biases
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

import isnet

_ENGINES = (isnet.LRPFlex, isnet.LRPBlock)
_RULES = [(("epsilon",), "epsilon"), (("epsilon",), "zb"), (("zplus",), "epsilon"), (("zplus", "epsilon"), "zb")]


class _Written(nn.Module):
    """Stem, residual block, head; ReLU, sum and pool are whatever functions it is given."""

    def __init__(
        self,
        relu: Callable[[Tensor], Tensor],
        add: Callable[[Tensor, Tensor], Tensor] = torch.add,
        pool: Callable[[Tensor], Tensor] = lambda x: x.mean((2, 3)),
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem, self.main, self.last = conv(3, 5), conv(5, 5), nn.Linear(5, 3)
            self.norms = nn.ModuleList([nn.BatchNorm2d(5), nn.BatchNorm2d(5)])
        self.relu, self.add, self.pool = relu, add, pool
        randomise(self, 0).double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norms[0](self.stem(x)))
        x = self.relu(self.add(self.norms[1](self.main(x)), x))
        return self.last(self.pool(x))


def _agree(one: nn.Module, other: nn.Module, engine: Callable = isnet.LRPFlex, **options: Any) -> None:
    expected, found = (engine(network, **options)(pixels(2, 3, 9, 9), isnet.JointLogits()) for network in (one, other))
    assert difference(found.logits, expected.logits) < 1e-12
    assert difference(found.relevance, expected.relevance) < 1e-12
    for name, relevance in expected.layers.items():
        assert difference(found.layers[name], relevance) < 1e-12


def _relu_discarding_the_result(x: Tensor) -> Tensor:
    x.relu_()
    return x


_RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.ReLU(),
    "in-place module": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "Tensor.relu_": lambda x: x.relu_(),
    "in place, result discarded": _relu_discarding_the_result,
    "on a view": lambda x: x.view(x.shape[0], -1).relu().view(x.shape),
    "twice": lambda x: F.relu(F.relu(x)),
}


@pytest.mark.parametrize(
    ("written", "rules", "input_rule"),
    [
        (name, *rules)
        for name in _RELUS
        for rules in _RULES
        if name != "twice"
        and not (name == "on a view" and "zb" in rules)  # z^B needs the first ReLU right behind its layer
    ],
)
def test_every_way_to_write_a_relu_gives_the_same_maps(written: str, rules: tuple[str, ...], input_rule: str) -> None:
    _agree(_Written(_RELUS["module"]), _Written(_RELUS[written]), rules=rules, input_rule=input_rule)


_SUMS = [
    Tensor.add_,
    Tensor.__iadd__,
    Tensor.__add__,
    lambda x, y: sum([x, y]),
    lambda x, y: torch.stack((x, y)).sum(0),
    lambda x, y: torch.stack([x, y], dim=-1).sum(-1),
]


@pytest.mark.parametrize("add", _SUMS)
@pytest.mark.parametrize(("rules", "input_rule"), _RULES)
def test_every_way_to_write_a_sum_gives_the_same_maps(add: Callable, rules: tuple[str, ...], input_rule: str) -> None:
    _agree(_Written(F.relu), _Written(F.relu, add), rules=rules, input_rule=input_rule)


@pytest.mark.parametrize(
    "largest",
    [
        lambda x: x.amax((2, 3)),
        lambda x: torch.amax(x, dim=(-1, -2), keepdim=True).flatten(1),
        lambda x: x.flatten(2).max(2)[0],
        lambda x: torch.max(x.flatten(2), -1, True).values.flatten(1),
        lambda x: torch.max(input=x.flatten(2), dim=-1, keepdim=True).values[..., 0],
    ],
)
@pytest.mark.parametrize(("rules", "input_rule"), _RULES)
def test_every_way_to_write_a_maximum_over_the_image_gives_the_same_maps(
    largest: Callable, rules: tuple[str, ...], input_rule: str
) -> None:
    def adaptive(x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, 1).flatten(1)

    # Of activations, and of values with a negative part.
    networks = [
        _Written(F.relu, pool=lambda x, pool=pool: pool(x) + pool(x.roll(1, 1) - x)) for pool in (adaptive, largest)
    ]
    _agree(*networks, rules=rules, input_rule=input_rule)


def test_two_relus_in_a_row_damp_twice() -> None:
    images = pixels(2, 3, 9, 9)
    once, twice = (
        isnet.LRPFlex(_Written(_RELUS[name]), 1e-9, "epsilon")(images, isnet.Logit(0)).relevance
        for name in ("module", "twice")
    )
    assert difference(twice, once) < 1e-5


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("layer", ["norms.0", "stem"])
@pytest.mark.parametrize("written", ["in-place module", "in place, result discarded", "F.relu_"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("engine", _ENGINES)
def test_an_in_place_relu_does_not_spoil_the_layer_before_it(
    engine: Callable, training: bool, written: str, layer: str, input_rule: str
) -> None:
    networks = [_Written(_RELUS[name]).train(training) for name in ("module", written)]
    _agree(*networks, engine, input_rule=input_rule, layers=(layer,))


@pytest.mark.parametrize("add", [Tensor.add_, Tensor.__iadd__])
@pytest.mark.parametrize("engine", _ENGINES)
def test_an_in_place_sum_does_not_spoil_the_layer_before_it(engine: Callable, add: Callable) -> None:
    _agree(_Written(F.relu), _Written(F.relu, add), engine, layers=("norms.1",))


def test_relevance_of_a_branch_of_torchvisions_residual_block() -> None:
    torch.manual_seed(0)
    block = randomise(BasicBlock(4, 4), 0).eval()
    network = nn.Sequential(
        conv(3, 4), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double()
    images, layers = pixels(2, 3, 9, 9), ("2.bn2", "2", "1")
    found = isnet.LRPFlex(network, 1e-9, layers=layers)(images, isnet.Logit(0)).layers
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(network[1](network[0](images)))))))
    sum_before_relu = branch + network[1](network[0](images))
    expected = torch.where(sum_before_relu > 0, found["2"][:, 0] * branch / sum_before_relu, 0)
    assert difference(found["2.bn2"][:, 0], expected) < 1e-5


# ---- z-plus relevance at outputs of modules that are not activations ----


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("layer", ["0", "1", "2.main", "2", "3"])
def test_zplus_relevance_is_conserved_at_a_layer_or_refused(layer: str, input_rule: str) -> None:
    network, images = without_biases(make("concatenation")), pixels(2, 3, 12, 12)
    explain = isnet.LRPFlex(network, 1e-13, input_rule, rules=("zplus",), layers=(layer,))
    try:
        _, relevance, layers = explain(images, isnet.JointLogits())
    except isnet.UnsupportedNetworkError:
        if layer == "1":
            # The output of a ReLU.
            raise
        return
    if layer == "2.main":
        # One of two concatenated branches: its part of the concatenation's relevance.
        explain = isnet.LRPFlex(network, 1e-13, input_rule, rules=("zplus",), layers=("2",))
        expected = explain(images, isnet.JointLogits()).layers["2"][:, :, :4]
        assert difference(layers[layer], expected) < 1e-6
    else:
        assert difference(layers[layer].flatten(2).sum(2), relevance.flatten(2).sum(2)) < 1e-6


# ---- layers ----


@pytest.mark.parametrize("engine", _ENGINES)
def test_one_relu_module_used_twice_is_no_layer_of_its_own(engine: Callable) -> None:
    network = _Written(nn.ReLU())
    with pytest.raises(ValueError, match=r"relu.*more than once"):
        engine(network, layers=("relu",))(pixels(1, 3, 9, 9), isnet.Logit(0))
    assert not network.relu._forward_hooks


def test_unknown_layers_are_named_with_their_neighbours() -> None:
    with pytest.raises(ValueError, match=r"norm\.0.*norms\.0"):
        isnet.LRPFlex(_Written(nn.ReLU()), layers=("norm.0",))


def test_a_layer_that_the_forward_pass_does_not_use_is_named() -> None:
    network = _Written(nn.ReLU())
    network.spare = nn.ReLU()
    with pytest.raises(ValueError, match="spare"):
        isnet.LRPFlex(network, layers=("spare",))(pixels(1, 3, 9, 9), isnet.Logit(0))
    assert not network.spare._forward_hooks


def test_a_layer_that_does_not_lead_to_the_logits_is_named() -> None:
    class SideBranch(_Written):
        def __init__(self) -> None:
            super().__init__(nn.ReLU())
            self.side = conv(3, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            self.side(x)
            return super().forward(x)

    with pytest.raises(isnet.UnsupportedNetworkError, match="side"):
        isnet.LRPFlex(SideBranch(), input_rule="epsilon", layers=("side",))(pixels(1, 3, 9, 9), isnet.Logit(0))


# ---- dropout ----


def _with_dropout() -> nn.Module:
    torch.manual_seed(0)
    layers = [
        conv(3, 6),
        nn.Dropout(0.4),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout2d(0.3),
        conv(6, 6),
        nn.Dropout2d(0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(384, 12),
        nn.Dropout(0.5, inplace=True),
        nn.ReLU(),
        nn.Linear(12, 3),
    ]
    network = without_biases(randomise(nn.Sequential(*layers), 0)).double().train()
    network[2].eval()
    return network


@pytest.mark.parametrize(("rules", "input_rule"), _RULES[::2])
def test_dropout_drops_the_same_units_from_values_and_relevance(rules: tuple[str, ...], input_rule: str) -> None:
    network, images = _with_dropout(), pixels(3, 3, 8, 8)
    explain = isnet.LRPFlex(network, 1e-13, input_rule, rules=rules, layers=("3", "7", "12"))
    for seed in range(3):
        torch.manual_seed(seed)
        expected = network(images)
        torch.manual_seed(seed)
        logits, relevance, layers = explain(images, isnet.JointLogits())
        assert torch.equal(logits, expected)
        for name, at_layer in layers.items():
            assert difference(at_layer.flatten(2).sum(2), relevance.flatten(2).sum(2)) < 1e-6, name


# ---- wrappers, frozen parameters, types of images ----


def test_wrappers_are_looked_through() -> None:
    network, images = make("residual"), pixels(2, 3, 9, 9)
    found = isnet.LRPFlex(nn.DataParallel(network), layers=("4",))(images, isnet.Logit(0))
    expected = isnet.LRPFlex(network, layers=("4",))(images, isnet.Logit(0))
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(found.layers["4"], expected.layers["4"])


@pytest.mark.parametrize("frozen", ["stem", "all"])
@pytest.mark.parametrize(("rules", "input_rule"), _RULES)
def test_frozen_parameters_do_not_change_maps_and_get_no_gradient(
    rules: tuple[str, ...], input_rule: str, frozen: str
) -> None:
    images, options = pixels(2, 3, 9, 9), {"rules": rules, "input_rule": input_rule, "layers": ("4",)}
    expected = isnet.LRPFlex(make("residual"), **options)(images, isnet.JointLogits())
    network = make("residual")
    (network[:3] if frozen == "stem" else network).requires_grad_(False)
    found = isnet.LRPFlex(network, **options)(images, isnet.JointLogits())
    assert torch.equal(found.relevance, expected.relevance)
    assert torch.equal(found.layers["4"], expected.layers["4"])
    if frozen == "stem":
        # Only z-plus starts from a virtual output that knows the last bias.
        without = set() if rules[0] == "zplus" else {"9.bias"}
        isnet.HeatmapLoss(0.1, 1.0)(found.relevance[:, :1], masks_of(images)).backward()
        with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        assert with_gradient == {name for name, _ in network.named_parameters() if int(name[0]) > 2} - without


def test_maps_in_single_precision_are_those_in_double_precision() -> None:
    for rules, input_rule in _RULES:
        single, double = (
            isnet.LRPFlex(make("residual", dtype=dtype), rules=rules, input_rule=input_rule)(
                pixels(2, 3, 9, 9, dtype=dtype), isnet.JointLogits()
            ).relevance
            for dtype in (torch.float32, torch.float64)
        )
        assert single.dtype == torch.float32
        assert difference(single.double(), double) < 1e-4


@pytest.mark.parametrize(("rules", "input_rule"), _RULES)
def test_memory_format_does_not_matter(rules: tuple[str, ...], input_rule: str) -> None:
    network, images = make("residual"), pixels(2, 3, 9, 12)
    expected = isnet.LRPFlex(network, rules=rules, input_rule=input_rule)(images, isnet.JointLogits()).relevance
    for like in (network, make("residual").to(memory_format=torch.channels_last)):
        found = isnet.LRPFlex(like, rules=rules, input_rule=input_rule)(
            images.contiguous(memory_format=torch.channels_last), isnet.JointLogits()
        ).relevance
        assert difference(found, expected) < 1e-10
    strided = pixels(2, 3, 12, 9).transpose(2, 3)
    found, expected = (
        isnet.LRPFlex(network, rules=rules, input_rule=input_rule)(x, isnet.JointLogits()).relevance
        for x in (strided, strided.contiguous())
    )
    assert difference(found, expected) < 1e-10


@pytest.mark.parametrize(("rules", "input_rule"), _RULES)
def test_one_image_one_class_one_channel(rules: tuple[str, ...], input_rule: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 1)).double()
    explain = isnet.LRPFlex(network, rules=rules, input_rule=input_rule)
    logits, relevance, _ = explain(pixels(1, 1, 5, 5), isnet.JointLogits())
    assert logits.shape == (1, 1)
    assert relevance.shape == (1, len(rules), 1, 5, 5)
    assert relevance.flatten(2).any(2).all()


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"input_rule": "z+"}, "input_rule"),
        ({"low": 0.5}, "low"),
        ({"high": -0.5}, "high"),
        ({"low": 0.0, "high": 0.0}, "low"),
        ({"high": float("inf")}, "finite"),
        ({"low": float("nan")}, "finite"),
        ({"low": [0.0, 0.0], "high": [1.0, 1.0, 1.0]}, "one per channel"),
        ({"layers": ("8",)}, "no layer '8'"),
        ({"rules": ()}, "rules"),
        ({"rules": ("gamma",)}, "rules"),
        ({"rules": ("epsilon", "epsilon")}, "rules"),
    ],
)
@pytest.mark.parametrize("engine", _ENGINES)
def test_arguments_out_of_range_are_refused(engine: Callable, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        engine(make("plain"), **arguments)


def test_another_treatment_of_batch_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_statistics"):
        isnet.LRPFlex(make("plain"), batch_statistics="live")


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"nn\.Module"):
        isnet.LRPFlex(lambda images: images)


@pytest.mark.parametrize("quantity", [isnet.EveryLogit(), isnet.Logit(0), isnet.SoftmaxEta()])
def test_zplus_rule_explains_all_outputs_at_once_only(quantity: isnet.Quantity) -> None:
    with pytest.raises(ValueError, match="JointLogits"):
        isnet.LRPFlex(make("plain"), rules=("zplus",))(pixels(1, 3, 8, 8), quantity)
