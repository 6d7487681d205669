"""The four ISNets: losses, gradients, deep supervision, weights, arguments."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from small_networks import VARIANTS, batch, difference, generator, make, pixels
from small_networks import expected_maps as _expected_maps
from small_networks import heatmap_loss as _loss
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

import isnet


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_total_is_the_weighted_sum_of_cross_entropy_and_heatmap_loss(variant: type, training: bool) -> None:
    network, (images, masks, labels) = make("residual").train(training), batch()
    explanation = _expected_maps(variant, copy.deepcopy(network), images)
    total, parts = (
        variant(network, _loss(), heatmap_weight=0.3, generator=generator())
        .train(training)
        .training_loss(images, masks, labels)
    )
    assert set(parts) == {"classification", "heatmap"}
    assert torch.allclose(parts["classification"], F.cross_entropy(explanation.logits, labels))
    assert torch.allclose(parts["heatmap"], _loss()(explanation.relevance, masks))
    assert torch.allclose(total, 0.7 * parts["classification"] + 0.3 * parts["heatmap"])
    assert total.shape == ()


@pytest.mark.parametrize("variant", VARIANTS)
def test_engine_settings_are_passed_on(variant: type) -> None:
    network, (images, masks, labels) = make("residual").train(), batch()
    settings = {"epsilon": 0.3, "input_rule": "zb", "low": -0.5, "high": 2.0, "batch_statistics": "differentiated"}
    expected = _loss()(_expected_maps(variant, copy.deepcopy(network), images, **settings).relevance, masks)
    net = variant(network, _loss(), generator=generator(), **settings)
    assert torch.allclose(net.training_loss(images, masks, labels).parts["heatmap"], expected)


def test_class_weights_weigh_the_cross_entropy() -> None:
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    network, (images, masks, labels) = make("plain"), batch()
    net = isnet.OriginalISNet(network, _loss(), class_weights=weights)
    expected = F.cross_entropy(network(images), labels, weight=weights)
    assert torch.allclose(net.training_loss(images, masks, labels).parts["classification"], expected)
    assert "class_weights" not in net.state_dict()


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_heatmap_weight_the_gradient_is_that_of_an_ordinary_classifier(variant: type) -> None:
    network, (images, masks, labels) = make("residual").train(), batch()
    plain = copy.deepcopy(network)
    variant(network, _loss(), heatmap_weight=0.0).training_loss(images, masks, labels).total.backward()
    F.cross_entropy(plain(images), labels).backward()
    for (name, found), expected in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(found.grad, expected.grad, atol=1e-12), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_the_sum_of_both_parts(variant: type) -> None:
    network, (images, masks, labels) = make("residual").train(), batch()
    explanation = _expected_maps(variant, network, images)
    expected = 0.3 * F.cross_entropy(explanation.logits, labels) + 0.7 * _loss()(explanation.relevance, masks)
    wanted = torch.autograd.grad(expected, list(network.parameters()))
    variant(network, _loss(), generator=generator()).training_loss(images, masks, labels).total.backward()
    for (name, parameter), gradient in zip(network.named_parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_lowers_both_losses(variant: type) -> None:
    network, (images, masks, labels) = make("residual", dtype=torch.float32), batch(dtype=torch.float32)
    masks = torch.zeros_like(masks)
    masks[..., :6] = 1
    net = variant(network, _loss(), heatmap_weight=0.5, generator=generator()).train()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    history = []
    for _ in range(40):
        total, parts = net.training_loss(images, masks, labels)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append([part.item() for part in parts.values()])
    before, after = (torch.tensor(part).mean(0) for part in (history[:5], history[-5:]))
    assert (after < 0.9 * before).all(), (before, after)


# ---- the backbone ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_isnet_is_its_backbone(variant: type) -> None:
    backbone = models.resnet18(num_classes=3)
    net = variant(backbone, {"input": _loss(), "layer4": _loss()}, layers=("layer4",), class_weights=torch.ones(3))
    assert net.backbone is backbone
    assert {name.removeprefix("backbone.") for name in net.state_dict()} == set(backbone.state_dict())
    net.train().training_loss(
        pixels(2, 3, 32, 32, dtype=torch.float32), torch.ones(2, 1, 32, 32), torch.tensor([0, 1])
    ).total.backward()
    plain = models.resnet18(num_classes=3)
    plain.load_state_dict(net.backbone.state_dict())
    images = pixels(2, 3, 32, 32, dtype=torch.float32)
    assert torch.equal(net.eval()(images), plain.eval()(images))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_copy_of_an_isnet_trains_its_own_backbone() -> None:
    net, given = isnet.SelectiveISNet(make("residual"), _loss()).train(), batch()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        expected = net.training_loss(*given).total
        with torch.no_grad():
            for parameter in other.backbone.parameters():
                parameter.mul_(1.5)
        assert torch.equal(net.training_loss(*given).total, expected)
        assert not torch.allclose(other.training_loss(*given).total, expected)


def test_type_and_device_of_an_isnet_can_be_changed() -> None:
    net = isnet.DualISNet(make("residual", dtype=torch.float32), isnet.HeatmapLoss((0.1, 0.2), (1.0, 2.0))).double()
    assert net.training_loss(*batch()).total.dtype == torch.float64


def test_wrapped_backbones_are_trained() -> None:
    network, given = make("residual"), batch()
    expected = isnet.OriginalISNet(network, _loss()).training_loss(*given).total
    net = isnet.OriginalISNet(nn.DataParallel(network), _loss(), layers=("4",), layer_decay=0.0)
    assert net.training_loss(*given).total >= 0.99 * expected
    assert torch.equal(net(given[0]), network(given[0]))


# ---- Stochastic, Dual ----


@pytest.mark.parametrize("p_top", [0.5, 0.8])
def test_stochastic_explains_the_top_logit_as_often_as_it_says(p_top: float, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, classes = [], isnet.RandomLogit.classes

    def recorded(self: isnet.RandomLogit, logits: Tensor) -> Tensor:
        found = classes(self, logits)
        drawn.extend((found[:, 0] == logits.argmax(1)).tolist())
        return found

    monkeypatch.setattr(isnet.RandomLogit, "classes", recorded)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    net = isnet.StochasticISNet(network, _loss(), p_top=p_top, generator=generator(3))
    images = pixels(100, 1, 4, 4, dtype=torch.float32)
    for _ in range(30):
        net.training_loss(images, torch.ones(100, 1, 4, 4), torch.zeros(100, dtype=torch.int64))
    assert len(drawn) == 3000
    assert stats.binomtest(sum(drawn), 3000, p_top).pvalue > 1e-3


def test_selective_passes_its_stabiliser_on() -> None:
    network, (images, masks, labels) = make("plain"), batch()
    maps = isnet.LRPFlex(network)(images, isnet.SoftmaxEta(0.3)).relevance
    found = isnet.SelectiveISNet(network, _loss(), eta_eps=0.3).training_loss(images, masks, labels).parts["heatmap"]
    assert torch.allclose(found, _loss()(maps, masks))


def test_dual_has_a_foreground_range_for_each_map_zplus_first() -> None:
    network, (images, masks, labels) = make("residual"), batch()
    maps = _expected_maps(isnet.DualISNet, network, images).relevance
    totals = (maps.abs() * masks[:, None]).sum((2, 3, 4)).mean(0).tolist()
    assert totals[0] > 1.2 * totals[1] or totals[1] > 1.2 * totals[0]
    ranges = [tuple(factor * total for total in totals) for factor in (0.9, 1.5)]
    found = (
        isnet.DualISNet(network, isnet.HeatmapLoss(*ranges, w1=0)).training_loss(images, masks, labels).parts["heatmap"]
    )
    expected = sum(isnet.HeatmapLoss(ranges[0][k], ranges[1][k], w1=0)(maps[:, [k]], masks) for k in (0, 1)) / 2
    swapped = [pair[::-1] for pair in ranges]
    other = (
        isnet.DualISNet(network, isnet.HeatmapLoss(*swapped, w1=0))
        .training_loss(images, masks, labels)
        .parts["heatmap"]
    )
    assert torch.allclose(found, expected)
    assert not torch.allclose(other, expected, rtol=1e-2)


# ---- deep supervision ----


def _layer_losses(
    network: nn.Module, losses: dict[str, isnet.HeatmapLoss], images: Tensor, masks: Tensor
) -> list[Tensor]:
    _, relevance, layers = isnet.LRPFlex(network, layers=tuple(name for name in losses if name != isnet.INPUT))(
        images, isnet.SoftmaxEta()
    )
    return [losses[name](heatmap, masks) for name, heatmap in {isnet.INPUT: relevance, **layers}.items()]


@pytest.mark.parametrize(
    ("decay", "pool"),
    [
        (1.0, lambda losses: sum(losses) / 3),
        (0.0, max),
        (0.5, lambda losses: sum(0.5**rank * loss for rank, loss in enumerate(sorted(losses, reverse=True))) / 1.75),
    ],
)
def test_losses_of_layers_are_pooled_by_rank(decay: float, pool: Callable) -> None:
    network, (images, masks, labels) = make("residual"), batch()
    losses = {isnet.INPUT: _loss(), "2": isnet.HeatmapLoss(1.0, 2.0), "6": isnet.HeatmapLoss(3.0, 4.0)}
    separate = _layer_losses(network, losses, images, masks)
    assert min(abs(a - b) for a, b in itertools.pairwise(separate)) > 1e-3
    for given in (losses, dict(reversed(losses.items()))):
        net = isnet.SelectiveISNet(network, given, layers=("2", "6"), layer_decay=decay)
        assert torch.allclose(
            net.training_loss(images, masks, labels).parts["heatmap"], torch.as_tensor(pool(separate))
        )


def test_one_loss_serves_all_layers() -> None:
    network, (images, masks, labels) = make("residual"), batch()
    loss = _loss()
    separate = _layer_losses(network, {isnet.INPUT: loss, "4": loss}, images, masks)
    net = isnet.SelectiveISNet(network, loss, layers=("4",))
    assert torch.allclose(net.training_loss(images, masks, labels).parts["heatmap"], sum(separate) / 2)


@pytest.mark.parametrize("losses", [{"input": _loss()}, {"input": _loss(), "4": _loss(), "6": _loss()}, {"4": _loss()}])
def test_losses_must_match_the_layers(losses: dict) -> None:
    with pytest.raises(ValueError, match="input, 4"):
        isnet.SelectiveISNet(make("residual"), losses, layers=("4",))


# ---- LRP-Block as engine, and arguments ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_can_use_lrp_block(variant: type) -> None:
    network, (images, masks, labels) = make("residual").train(), batch()
    net = variant(network, _loss(), propagation="block", layers=("4",), generator=generator())
    net.training_loss(images, masks, labels).total.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
    assert sum(bool(parameter.grad.any()) for parameter in network.parameters()) >= len(list(network.parameters())) - 4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"heatmap_weight": -0.1}, "heatmap_weight"),
        ({"heatmap_weight": 1.1}, "heatmap_weight"),
        ({"layer_decay": 2.0}, "layer_decay"),
        ({"heatmap_fraction": 0.0}, "heatmap_fraction"),
        ({"heatmap_fraction": 1.5}, "heatmap_fraction"),
        ({"propagation": "gradient"}, "propagation"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"layers": ("stem",)}, "stem"),
        ({"input_rule": "x"}, "input_rule"),
        ({"batch_statistics": "x"}, "batch_statistics"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        isnet.OriginalISNet(make("residual"), _loss(), **arguments)


def test_a_dual_loss_with_another_number_of_ranges_is_refused() -> None:
    net = isnet.DualISNet(make("residual"), isnet.HeatmapLoss((1.0,) * 3, (2.0,) * 3))
    with pytest.raises(ValueError, match="3 foreground ranges"):
        net.training_loss(*batch())


def test_an_isnet_of_no_kind_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        isnet.ISNet(make("plain"), _loss())


def test_maps_of_a_trained_isnet_are_those_of_its_backbone() -> None:
    network, (images, masks, labels) = make("residual"), batch()
    net = isnet.SelectiveISNet(network, _loss()).train()
    net.training_loss(images, masks, labels).total.backward()
    net.eval()
    found = isnet.LRPFlex(net.backbone)(images, isnet.EveryLogit()).relevance
    fresh = make("residual")
    fresh.load_state_dict(network.state_dict())
    assert difference(isnet.LRPFlex(fresh)(images, isnet.EveryLogit()).relevance, found) == 0
