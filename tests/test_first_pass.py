"""The second pass of `heatmap_fraction` reads the first one's layers: when it does, and when it must not."""

from __future__ import annotations

import pytest
import torch
from small_networks import difference, make, pixels
from torch import Tensor, nn

import isnet


class _WithDropout(nn.Module):
    def __init__(self, drawn: bool) -> None:
        super().__init__()
        self.features, self.head = make("residual").train(), nn.Linear(3, 3, dtype=torch.float64)
        self.drop = nn.Dropout(0.5) if drawn else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.drop(self.features(images)).relu())


class _SharedWeight(nn.Module):
    """One convolution for a constant, and then for what depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)
        self.head = nn.Linear(2, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images).relu()
        constant = self.second(torch.ones_like(features[:1]))
        return self.head((self.second(features) + constant.detach()).relu().mean((2, 3)))


def _explain(network: nn.Module, images: Tensor, chosen: Tensor, quantity: isnet.Quantity) -> Tensor:
    with isnet.FirstPass(chosen, images.device) as first:
        network(images)
    return isnet.LRPFlex(network)(images[chosen], quantity, first).relevance


def test_no_convolution_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = make("residual").train(), pixels(5, 3, 8, 8)
    ran: list[int] = []
    plain = isnet.flex_convolution.FlexConvolution.__call__
    monkeypatch.setattr(
        isnet.flex_convolution.FlexConvolution, "__call__", lambda self, a: ran.append(len(a)) or plain(self, a)
    )
    _explain(network, images, torch.tensor([3, 1]), isnet.JointLogits())
    # The z^B rule alone asks the first layer, for the images and for an image of ones.
    assert ran == [2, 1]
    isnet.LRPFlex(network)(images[:2], isnet.JointLogits())
    assert len(ran) > 4


@pytest.mark.parametrize("drawn", [False, True])
def test_a_network_that_draws_random_numbers_is_computed_again(drawn: bool) -> None:
    network, images, chosen = _WithDropout(drawn), pixels(6, 3, 8, 8), torch.tensor([0, 4])
    with isnet.FirstPass(chosen, images.device) as first:
        network(images)
    assert first.reusable is not drawn
    explained = isnet.LRPFlex(network)(images[chosen], isnet.EveryLogit(), first)
    assert explained.relevance.isfinite().all()
    if not drawn:
        assert difference(explained.logits, network(images)[chosen]) < 1e-9


@pytest.mark.parametrize("variant", [isnet.OriginalISNet, isnet.DualISNet])
def test_an_isnet_with_dropout_trains_on_a_part_of_the_heatmaps(variant: type) -> None:
    network, loss = _WithDropout(drawn=True), isnet.HeatmapLoss(0.1, 1.0)
    images, labels = pixels(6, 3, 8, 8), torch.zeros(6, dtype=torch.int64)
    net = variant(network, loss, heatmap_fraction=0.5)
    net.training_loss(images, (images[:, :1] > 0.5).double(), labels).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


class _InsideAutocast(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.network(images)


@pytest.mark.parametrize("inside", [False, True])
def test_outputs_are_not_kept_under_autocast(inside: bool) -> None:
    network, images = make("residual", dtype=torch.float32), pixels(4, 3, 8, 8, dtype=torch.float32)
    network, chosen = _InsideAutocast(network) if inside else network, torch.tensor([1])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not inside):
        with isnet.FirstPass(chosen, images.device) as first:
            network(images)
        assert not first.reusable
        explained = isnet.LRPFlex(network)(images[chosen], isnet.JointLogits(), first)
    assert explained.relevance.isfinite().all()


def test_a_layer_that_reads_a_constant_as_well_is_not_mistaken() -> None:
    torch.manual_seed(0)
    network, images, chosen = _SharedWeight(), pixels(4, 3, 7, 7, dtype=torch.float32), torch.tensor([2, 0])
    expected = isnet.LRPFlex(network)(images[chosen], isnet.EveryLogit()).relevance
    assert difference(_explain(network, images, chosen, isnet.EveryLogit()), expected) < 1e-5


def test_another_network_is_computed_anew() -> None:
    network, other, images, chosen = make("plain"), make("plain", seed=1), pixels(4, 3, 8, 8), torch.tensor([2, 0])
    with isnet.FirstPass(chosen, images.device) as first:
        other(images)
    found = isnet.LRPFlex(network)(images[chosen], isnet.EveryLogit(), first).relevance
    assert difference(found, isnet.LRPFlex(network)(images[chosen], isnet.EveryLogit()).relevance) < 1e-9


def test_several_copies_are_so_many_times_the_same_images() -> None:
    network, images, chosen = make("concatenation"), pixels(4, 3, 8, 8), torch.tensor([3, 0])
    labels = torch.arange(3).repeat_interleave(2)
    with isnet.FirstPass(chosen, images.device) as first:
        network(images)
    found = isnet.LRPFlex(network)(images[chosen].repeat(3, 1, 1, 1), isnet.Logit(labels), first).relevance
    expected = isnet.LRPFlex(network)(images[chosen], isnet.EveryLogit()).relevance
    assert difference(found.view(3, 2, 3, 8, 8).transpose(0, 1), expected) < 1e-9


def test_other_images_than_the_first_pass_was_told_of() -> None:
    network, images = make("plain"), pixels(4, 3, 8, 8)
    with isnet.FirstPass(torch.tensor([0, 1]), images.device) as first:
        network(images)
    with pytest.raises(ValueError, match="told of 2 images, but 3 are explained"):
        isnet.LRPFlex(network)(images[:3], isnet.EveryLogit(), first)


def test_overwritten_outputs_are_kept_as_they_were() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 16, 3)).double().train()
    images, chosen = pixels(4, 3, 8, 8), torch.tensor([2, 1])
    expected = isnet.LRPFlex(network)(images, isnet.EveryLogit()).relevance[chosen]
    assert difference(_explain(network, images, chosen, isnet.EveryLogit()), expected) < 1e-9
