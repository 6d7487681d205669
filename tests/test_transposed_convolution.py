"""Transposed convolutions are explained as the convolutions that they can be written as."""

from __future__ import annotations

import pytest
import torch
from small_networks import conv, difference, pixels, randomise
from torch import Tensor, nn
from torch.nn import functional as F

import isnet


class _Network(nn.Module):
    def __init__(self, layer: nn.ConvTranspose2d, written_as_convolution: bool) -> None:
        super().__init__()
        self.first, self.layer, self.norm, self.last = conv(3, 4), layer, nn.BatchNorm2d(6), nn.Linear(6, 3)
        self.written_as_convolution = written_as_convolution

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = self._convolution(x) if self.written_as_convolution else self.layer(x)
        return self.last(F.relu(self.norm(x)).mean((2, 3)))

    def _convolution(self, x: Tensor) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        if self.layer.stride == (1, 1):
            return F.conv2d(x, weight.transpose(0, 1).flip(2, 3), bias, padding=1)
        # Windows that do not overlap: one matrix product a pixel, whose results are laid out side by side.
        by_position = weight.permute(1, 2, 3, 0).flatten(0, 2)[..., None, None]
        return F.pixel_shuffle(F.conv2d(x, by_position, bias.repeat_interleave(4)), 2)


@pytest.mark.parametrize("rules", [("epsilon",), ("zplus",), ("zplus", "epsilon")])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{"kernel_size": 3, "padding": 1}, {"kernel_size": 2, "stride": 2}])
def test_maps_and_gradients_are_those_of_convolutions(options: dict, training: bool, rules: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    layer, found = nn.ConvTranspose2d(4, 6, **options), []
    for written in (False, True):
        torch.manual_seed(1)
        network = randomise(_Network(layer, written), 0).double().train(training)
        logits, maps, _ = isnet.LRPFlex(network, rules=rules)(pixels(2, 3, 8, 8), isnet.JointLogits())
        gradients = torch.autograd.grad(maps.square().sum(), [network.first.weight, layer.weight])
        found.append([logits, maps, *gradients])
    for one, other in zip(*found, strict=True):
        assert difference(one, other) < 1e-10


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_part_of_the_heatmaps_sees_the_same_network(fraction: float) -> None:
    torch.manual_seed(0)
    layer, totals = nn.ConvTranspose2d(4, 6, 3, padding=1), []
    for written in (False, True):
        torch.manual_seed(1)
        network = randomise(_Network(layer, written), 0).double().train()
        draws = torch.Generator().manual_seed(0)
        net = isnet.OriginalISNet(network, isnet.HeatmapLoss(0.1, 1.0), heatmap_fraction=fraction, generator=draws)
        images = pixels(4, 3, 8, 8)
        totals.append(net.training_loss(images, (images[:, :1] > 0.5).double(), torch.tensor([0, 1, 2, 0])).total)
    assert totals[0].item() == pytest.approx(totals[1].item(), rel=1e-10)


def test_groups_and_output_padding_are_kept() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2)
    network = nn.Sequential(
        conv(3, 4), nn.ReLU(), layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
    images = pixels(2, 3, 8, 8).requires_grad_()
    network = network.double()
    (gradient,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
    explained = isnet.LRPFlex(network, 1e-13, "epsilon")(images.detach(), isnet.Logit(1))
    assert difference(explained.logits, network(images)) < 1e-12
    assert difference(explained.relevance[:, 0], images * gradient) < 1e-8


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_its_transpose_is_the_convolution(dimensions: int) -> None:
    torch.manual_seed(0)
    make = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1]
    layer = make(2, 3, 3, stride=2, bias=False).double()
    affine = isnet.affine_layers.TransposedConvolution.of(layer.weight, stride=2)
    a, s = torch.rand(2, 2, *(4,) * dimensions).double(), torch.rand(1, 2, 3, *(9,) * dimensions).double()
    assert torch.equal(affine(a), layer(a))
    assert affine.transposed(s, a.shape)[0].mul(a).sum().item() == pytest.approx(affine(a).mul(s[0]).sum().item())


def test_the_zb_rule_has_no_place_for_it_as_the_first_layer() -> None:
    network = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(isnet.UnsupportedNetworkError, match="they reach 'conv_transpose2d'"):
        isnet.LRPFlex(network.double())(pixels(1, 3, 8, 8), isnet.Logit(0))
