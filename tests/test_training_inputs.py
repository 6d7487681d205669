"""What ISNets are given to train on: masks, labels and images of other forms are understood or refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from small_networks import VARIANTS, batch, conv, generator, make
from small_networks import expected_maps as _expected_maps
from small_networks import heatmap_loss as _loss
from torch import Tensor, nn
from torch.nn import functional as F

import isnet


def _half(masks: Tensor) -> Tensor:
    """Return masks of which every second image has none."""
    masks = masks.clone()
    masks[::2] = torch.nan
    return masks


_MASKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "0 and 255": (
        lambda masks: (masks * 255).to(torch.uint8),
        r"1 on the foreground and 0 .* hold 0, 255: use \(masks >",
    ),
    "-1 and 1": (lambda masks: 2 * masks - 1, "hold -1, 1"),
    "one-hot": (
        lambda masks: torch.cat([1 - masks, masks], 1),
        r"shape \(4, 1, 12, 8\), got .* channel of the foreground",
    ),
    "one-hot of three classes": (
        lambda masks: torch.cat([1 - masks, masks, 0 * masks], 1),
        "channels of the masks differ",
    ),
    "with an alpha channel": (lambda masks: torch.cat([masks] * 3 + [torch.ones_like(masks)], 1), "alpha channel"),
    "transposed": (lambda masks: masks.mT, "transpose"),
    "of another number": (lambda masks: masks[:2], "masks must have shape"),
    "without channels": (lambda masks: masks[:, 0], "masks must have shape"),
    "empty": (torch.zeros_like, "4 of 4 masks have no foreground"),
    "partly unknown": (lambda masks: masks.masked_fill(masks.cumsum(2) > 2, torch.nan), "NaN everywhere"),
    "infinite": (lambda masks: masks / (1 - masks), "hold .*inf"),
}


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("name", _MASKS)
def test_masks_of_another_kind_are_refused_with_a_remedy(name: str, fraction: float) -> None:
    images, masks, labels = batch()
    change, message = _MASKS[name]
    net = isnet.OriginalISNet(make("plain"), _loss(), heatmap_fraction=fraction, generator=generator())
    with pytest.raises(ValueError, match=message):
        net.training_loss(images[..., :8], change(masks[..., :8]), labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda masks: masks.bool(),
        lambda masks: masks.to(torch.uint8),
        lambda masks: masks.expand(-1, 3, -1, -1),
        lambda masks: F.interpolate(masks, scale_factor=2.0),
    ],
)
def test_the_same_masks_in_another_form_give_the_same_loss(change: Callable) -> None:
    images, masks, labels = batch()
    net = isnet.DualISNet(make("plain"), _loss(), layers=("3",))
    expected, found = (net.training_loss(images, given, labels).total for given in (masks, change(masks)))
    assert torch.equal(found, expected)


def test_one_empty_mask_among_others_is_told_of_once() -> None:
    images, masks, labels = batch()
    masks[1] = 0
    net = isnet.OriginalISNet(make("plain"), _loss())
    with pytest.warns(UserWarning, match="1 of 4 masks have no foreground"):
        net.training_loss(images, masks, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.training_loss(images, masks, labels)


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_without_a_mask_take_part_in_classification_alone(variant: type) -> None:
    images, masks, labels = batch()
    network, masks = make("residual"), _half(masks)
    found = variant(network, _loss(), layers=("4",), generator=generator()).training_loss(images, masks, labels).parts
    assert torch.allclose(found["classification"], F.cross_entropy(network(images), labels))
    maps = _expected_maps(variant, network, images[1::2], layers=("4",))
    expected = sum(_loss()(each, masks[1::2]) for each in (maps.relevance, maps.layers["4"])) / 2
    assert torch.allclose(found["heatmap"], expected)
    each = _loss(reduction="none")(_expected_maps(variant, network, images).relevance, masks)
    assert torch.equal(each == 0, torch.tensor([True, False] * 2))
    net = variant(network, _loss(), heatmap_fraction=0.5, generator=generator())
    assert net.training_loss(images, masks, labels).parts["heatmap"] > 0
    none = net.training_loss(images, masks * torch.nan, labels)
    assert none.parts["heatmap"] == 0
    none.total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("propagation", ["flex", "block"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_only_images_with_a_mask_are_explained(variant: type, propagation: str, training: bool, monkeypatch) -> None:
    images, masks, labels = batch(6)
    masks[torch.tensor([0, 2, 3, 5])] = torch.nan
    network = make("residual").train(training)
    net = variant(network, _loss(), propagation=propagation, generator=generator()).train(training)
    explained, loss_of = [], isnet.HeatmapLoss.forward

    def count(self: isnet.HeatmapLoss, relevance: Tensor, masks: Tensor) -> Tensor:
        explained.append(len(relevance))
        return loss_of(self, relevance, masks)

    with monkeypatch.context() as patch:
        patch.setattr(isnet.HeatmapLoss, "forward", count)
        losses = net.training_loss(images, masks, labels)
        net.training_loss(images, masks * torch.nan, labels)
    # LRP-Block could not give the whole gradient otherwise.
    assert explained == [2 if propagation == "flex" else 6]
    if variant is isnet.StochasticISNet:
        return
    # The engine, asked to explain all of them, gives the same loss and gradient.
    maps = net._explain(images, net.quantity()).relevance
    expected = _loss()(maps, masks)
    assert torch.allclose(losses.parts["heatmap"], expected)
    parameters = list(network.parameters())
    found, wanted = (
        torch.autograd.grad(value, parameters, allow_unused=True) for value in (losses[1]["heatmap"], expected)
    )
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-7, atol=1e-10)


def test_heatmaps_through_batch_statistics_are_those_of_the_whole_batch() -> None:
    images, masks, labels = batch(6)
    masks[::2] = torch.nan
    network = make("residual").train()
    options = {"batch_statistics": "differentiated"}
    found = isnet.SelectiveISNet(network, _loss(), **options).train().training_loss(images, masks, labels)
    explain = isnet.LRPFlex(network, **options)
    maps = explain(images, isnet.SoftmaxEta()).relevance
    assert torch.allclose(found.parts["heatmap"], _loss()(maps, masks))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.0, 1.0, 2.0, 0.0]), "one class per image, got torch.float32"),
        (torch.eye(4, 3), "several labels per image"),
        (torch.eye(4, 3, dtype=torch.int64), r"shape \(4, 3\)"),
        (torch.tensor([[0], [1], [2], [0]]), r"shape \(4, 1\)"),
        (torch.tensor([0, 1, 3, 0]), r"0\.\.2"),
        (torch.tensor([0, -100, 1, 0]), r"0\.\.2"),
    ],
)
def test_labels_of_another_kind_are_refused(labels: Tensor, message: str) -> None:
    images, masks, _ = batch()
    net = isnet.OriginalISNet(make("plain"), _loss())
    with pytest.raises(ValueError, match=message):
        net.training_loss(images, masks, labels)
    expected = net.training_loss(images, masks, torch.tensor([2, 0, 1, 2])).total
    assert torch.equal(net.training_loss(images, masks, torch.tensor([2, 0, 1, 2], dtype=torch.uint8)).total, expected)


def test_a_single_logit_is_refused() -> None:
    images, masks, _ = batch()
    network = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(1)).double()
    network(images)
    with pytest.raises(ValueError, match="single logit"):
        isnet.OriginalISNet(network, _loss()).training_loss(images, masks, torch.zeros(4, dtype=torch.int64))


def test_volumes_are_trained() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(32, 2))
    volumes, masks = torch.rand(3, 1, 5, 6, 7), torch.zeros(3, 1, 5, 6, 7)
    masks[:, :, 1:3] = 1
    net = isnet.OriginalISNet(network, _loss(decay=0.0, w2=0.0), layers=("1",))
    losses = net.training_loss(volumes, masks, torch.tensor([0, 1, 1]))
    losses.total.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    flat = _loss()(torch.ones(1, 2, 1, 2, 3, 4), masks[:1, :, :2, :3, :4])
    assert torch.allclose(flat, _loss()(torch.ones(1, 2, 1, 6, 4), masks[:1, :, :2, :3, :4].flatten(2, 3)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fraction", [0.25, 1.0])
@pytest.mark.parametrize("propagation", ["flex", "block"])
def test_an_empty_batch_is_refused(propagation: str, fraction: float, training: bool) -> None:
    options = {"propagation": propagation, "heatmap_fraction": fraction}
    net = isnet.StochasticISNet(make("residual"), _loss(), **options).train(training)
    images, masks, labels = batch()
    with pytest.raises(ValueError, match=r"the batch holds no images \(shape \(0, 3, 12, 12\)\)"):
        net.training_loss(images[:0], masks[:0], labels[:0])
    engine = isnet.LRPFlex if propagation == "flex" else isnet.LRPBlock
    with pytest.raises(ValueError, match="the batch holds no images"):
        engine(net.backbone)(images[:0], isnet.Logit(0))
