"""What is done to a network or its values after they were first seen: followed, or refused, never passed over."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from small_networks import VARIANTS, batch, conv, difference, generator, heatmap_loss, make, pixels
from timm.layers import DropBlock2d
from torch import Tensor, nn
from torch.nn.utils import prune

import isnet


def _net(backbone: nn.Module, variant: type = isnet.OriginalISNet, **options: object) -> isnet.ISNet:
    return variant(backbone, heatmap_loss(), generator=generator(), **options)


# ---- the backbone ----


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_backbone_put_in_place_of_another_is_trained(variant: type, fraction: float) -> None:
    other = make("residual", seed=5)
    expected = _net(copy.deepcopy(other), variant, heatmap_fraction=fraction, layers=("4",)).training_loss(*batch())
    net = _net(make("residual"), variant, heatmap_fraction=fraction, layers=("4",))
    net.backbone = other
    found = net.training_loss(*batch())
    assert torch.equal(found.total, expected.total)
    found.total.backward()
    assert all(parameter.grad is not None for parameter in other.parameters())
    net.backbone = make("plain")[:2]
    with pytest.raises(ValueError, match="no layer '4'"):
        net.training_loss(*batch())


def test_a_layer_put_in_place_of_another_is_explained() -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    explain = isnet.LRPFlex(network)
    explain(images, isnet.Logit(0))
    network[0] = make("residual", seed=3)[0]
    expected = isnet.LRPFlex(copy.deepcopy(network))(images, isnet.Logit(0)).relevance
    assert torch.equal(explain(images, isnet.Logit(0)).relevance, expected)
    network[2] = nn.GELU()
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"'gelu' in 2 \(GELU\)"):
        explain(images, isnet.Logit(0))


_COMPILE: dict[str, Callable[[nn.Module], object]] = {
    "a layer": lambda network: network.__setitem__(3, torch.compile(network[3], backend="eager")),
    "a layer in place": lambda network: network[3].compile(backend="eager"),
    "all in place": lambda network: network.compile(backend="eager"),
    "the forward pass": lambda network: setattr(network, "forward", torch.compile(network.forward, backend="eager")),
}


@pytest.mark.parametrize("name", _COMPILE)
def test_compiled_parts_are_refused(engine: Callable, name: str) -> None:
    network = make("residual")
    explain = engine(network)
    _COMPILE[name](network)
    named = "3" if "layer" in name else "the network itself"
    with pytest.raises(isnet.UnsupportedNetworkError, match=f"^{named} is compiled, but LRP follows"):
        explain(pixels(2, 3, 12, 12), isnet.Logit(0))


def test_a_compiled_backbone_is_explained_as_it_was_and_not_trained() -> None:
    network, images = make("residual"), pixels(2, 3, 12, 12)
    compiled = torch.compile(network, backend="eager")
    expected = isnet.LRPFlex(network)(images, isnet.Logit(0)).relevance
    assert torch.equal(isnet.LRPFlex(compiled)(images, isnet.Logit(0)).relevance, expected)
    with pytest.raises(ValueError, match="leave compiled code unused"):
        _net(compiled)
    net = _net(network)
    net.backbone = compiled
    with pytest.raises(ValueError, match="leave compiled code unused"):
        net.training_loss(*batch())


def test_layers_that_wait_for_their_first_batch_are_refused() -> None:
    network = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    with pytest.raises(ValueError, match=r"^3 has no weights yet: let the network classify a batch first$"):
        _net(network)
    network(pixels(1, 3, 12, 12))
    assert _net(network).training_loss(*batch()).total.isfinite()


# ---- values ----


class _Normalising(nn.Module):
    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.network, self.in_place = make("residual"), in_place

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.sub_(0.25).mul_(2) if self.in_place else (x - 0.25) * 2)


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_network_may_overwrite_its_images(fraction: float, input_rule: str) -> None:
    losses, gradients = [], []
    for in_place in (False, True):
        net = _net(_Normalising(in_place), heatmap_fraction=fraction, input_rule=input_rule)
        losses.append(net.training_loss(*batch()).total)
        gradients.append(torch.autograd.grad(losses[-1], net.backbone.network[0].weight)[0])
    assert torch.equal(*losses)
    assert difference(*gradients) < 1e-12


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_pruned_weights_are_those_that_the_mask_leaves(fraction: float) -> None:
    network = make("residual")
    pruned, mask = copy.deepcopy(network), (pixels(*network[0].weight.shape) > 0.5).double()
    prune.custom_from_mask(pruned[0], "weight", mask)
    with torch.no_grad():
        network[0].weight.mul_(mask)
    found, expected = (
        _net(each, heatmap_fraction=fraction).training_loss(*batch()).total for each in (pruned, network)
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_parameters_given_for_one_call_are_used() -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _net(make("residual"))

        def forward(self, *given: Tensor) -> Tensor:
            return self.net.training_loss(*given).total

    loss = Loss()
    other = {name: 1.3 * parameter.detach() for name, parameter in loss.named_parameters()}
    found = torch.func.functional_call(loss, other, batch())
    with torch.no_grad():
        for name, parameter in loss.named_parameters():
            parameter.copy_(other[name])
    assert torch.equal(found, loss(*batch()))


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_masks_that_a_network_draws_without_gradient_are_constants(fraction: float) -> None:
    network = nn.Sequential(conv(3, 4), nn.ReLU(), DropBlock2d(0.4, 3), conv(4, 4), nn.ReLU())
    network = nn.Sequential(*network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double().train()
    net = _net(network, heatmap_fraction=fraction)
    torch.manual_seed(0)
    losses = net.training_loss(*batch())
    assert losses.total.isfinite()
    if fraction == 1:
        torch.manual_seed(0)
        images, _, labels = batch()
        assert torch.allclose(losses.parts["classification"], nn.functional.cross_entropy(network(images), labels))


def test_timm_s_drop_block_and_drop_path_are_trained() -> None:
    network = timm.create_model("resnet10t", num_classes=3, drop_path_rate=0.5, drop_block_rate=0.5).double().train()
    images, masks = pixels(4, 3, 64, 64), torch.ones(4, 1, 64, 64)
    total = _net(network).training_loss(images, masks, torch.tensor([0, 1, 2, 0])).total
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
