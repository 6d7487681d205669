"""Maps of an image do not depend on the others of its batch, but through batch statistics where these are asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from small_networks import NETWORKS, conv, difference, make, pixels
from torch import Tensor, nn

import isnet

_BOTH_RULES = ("zplus", "epsilon")


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_in_evaluation_mode_do_not_depend_on_the_batch(engine: Callable, name: str, input_rule: str) -> None:
    explain = engine(make(name), input_rule=input_rule, rules=_BOTH_RULES, layers=("1",))
    images = pixels(3, 3, 12, 12)
    together, alone = (explain(given, isnet.JointLogits()) for given in (images, images[1:2]))
    assert difference(alone.relevance, together.relevance[1:2]) < 1e-10
    assert difference(alone.layers["1"], together.layers["1"][1:2]) < 1e-10


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_with_an_inactive_slope_do_not_depend_on_the_batch(name: str) -> None:
    explain = isnet.LRPFlex(make(name), layers=("1",), inactive_slope=0.3)
    images = pixels(3, 3, 12, 12)
    together, alone = (explain(given, isnet.SoftmaxEta()) for given in (images, images[1:2]))
    assert difference(alone.relevance, together.relevance[1:2]) < 1e-10
    assert difference(alone.layers["1"], together.layers["1"][1:2]) < 1e-10


def _with_batch_statistics(network: nn.Module, images: Tensor) -> nn.Module:
    """Copy a network for evaluation, with the mean and the biased variance of this batch as running statistics."""
    network = copy.deepcopy(network).train()

    def store(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        module.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        module.running_var.copy_(inputs[0].var((0, 2, 3), correction=0))

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [module.register_forward_hook(store) for module in norms]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    return network.eval()


@pytest.mark.parametrize("rules", [("epsilon",), ("zplus",), ("zplus", "epsilon")])
@pytest.mark.parametrize("name", ["average_pool", "residual", "concatenation", "linear_bottleneck"])
def test_frozen_statistics_make_the_network_of_this_batch(name: str, rules: tuple[str, ...]) -> None:
    network, images = make(name).train(), pixels(4, 3, 12, 12)
    options = {"input_rule": "epsilon", "rules": rules}
    expected = isnet.LRPFlex(_with_batch_statistics(network, images), **options)(images, isnet.JointLogits())
    found = isnet.LRPFlex(network, batch_statistics="frozen", **options)(images, isnet.JointLogits())
    assert difference(found.logits, expected.logits) < 1e-10
    assert difference(found.relevance, expected.relevance) < 1e-10


@pytest.mark.parametrize("rules", [("epsilon",), ("zplus",)])
def test_frozen_statistics_behind_the_first_layer(rules: tuple[str, ...]) -> None:
    network, images = make("residual").train(), pixels(4, 3, 12, 12)
    layers = ("2", "4", "6")
    expected = isnet.LRPFlex(_with_batch_statistics(network, images), rules=rules, layers=layers)(
        images, isnet.JointLogits()
    )
    found = isnet.LRPFlex(network, rules=rules, layers=layers)(images, isnet.JointLogits())
    for name in layers:
        assert difference(found.layers[name], expected.layers[name]) < 1e-10
    # z^B takes the unbiased variance, as LRP-Block does: near, but not equal.
    assert 1e-6 < difference(found.relevance, expected.relevance) < 0.1


@dataclass(frozen=True)
class _FirstImageOnly(isnet.Quantity):
    def scores(self, logits: Tensor) -> Tensor:
        return logits[:, :1] * torch.eye(len(logits), dtype=logits.dtype)[:, :1]


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("name", ["residual", "concatenation", "linear_bottleneck"])
def test_no_relevance_passes_between_images_unless_asked_for(name: str, input_rule: str) -> None:
    network, images = make(name).train(), pixels(4, 3, 12, 12)
    frozen = isnet.LRPFlex(network, input_rule=input_rule)(images, _FirstImageOnly()).relevance
    assert frozen[0].any()
    assert not frozen[1:].any()
    coupled = isnet.LRPFlex(network, input_rule=input_rule, batch_statistics="differentiated")(
        images, _FirstImageOnly()
    )
    assert coupled.relevance[1:].abs().max() > 1e-3 * coupled.relevance.abs().max()


@pytest.mark.parametrize("name", ["residual", "concatenation", "linear_bottleneck"])
def test_zplus_rule_always_freezes_batch_statistics(name: str) -> None:
    network, images = make(name).train(), pixels(4, 3, 12, 12)
    frozen, asked = (
        isnet.LRPFlex(network, rules=("zplus",), batch_statistics=mode)(images, isnet.JointLogits()).relevance
        for mode in ("frozen", "differentiated")
    )
    assert difference(asked, frozen) < 1e-10


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("rules", [("epsilon",), ("zplus", "epsilon")])
def test_given_statistics_explain_a_part_of_the_batch_as_if_whole(
    engine: Callable, rules: tuple[str, ...], input_rule: str
) -> None:
    network, images = make("residual").train(), pixels(5, 3, 12, 12)
    explain = engine(network, input_rule=input_rule, rules=rules, layers=("4",))
    logits, relevance, layers = explain(images, isnet.JointLogits())
    with isnet.BatchStatistics() as statistics:
        assert torch.equal(network(images), logits)
    before = copy.deepcopy(network.state_dict())
    part = explain(images[[3, 1]], isnet.JointLogits(), statistics)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert difference(part.logits, logits[[3, 1]]) < 1e-10
    assert difference(part.relevance, relevance[[3, 1]]) < 1e-10
    assert difference(part.layers["4"], layers["4"][[3, 1]]) < 1e-10
    with pytest.raises(ValueError, match="another network"):
        explain(images, isnet.JointLogits(), isnet.BatchStatistics())


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("propagation", ["flex", "block"])
def test_one_value_per_channel_in_training_mode_is_refused_as_torch_does(propagation: str, fraction: float) -> None:
    torch.manual_seed(0)
    layers = [conv(3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(4, 3))
    before = copy.deepcopy(network.state_dict())
    images, masks = pixels(3, 3, 6, 6, dtype=torch.float32), torch.ones(3, 1, 6, 6)
    net = isnet.SelectiveISNet(
        network, isnet.HeatmapLoss(0.1, 1.0), propagation=propagation, heatmap_fraction=fraction
    ).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        net.training_loss(images[:1], masks[:1], torch.tensor([1]))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items() if "num" not in key)
    # A single explained image of a larger batch is none.
    assert net.training_loss(images, masks, torch.tensor([1, 0, 2])).total.isfinite()
    assert all(buffer.isfinite().all() for buffer in network.buffers())
