"""Refusals name their true cause: checkpointing, hooks, products, exported graphs; not every one is about ReLUs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import timm
import torch
from small_networks import conv, difference, make, pixels
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint
from torchvision import models

import isnet

_AS_ALWAYS = "use a ReLU variant"


def _images(size: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    return pixels(2, 3, size, size, dtype=dtype)


class _Checkpointed(nn.Module):
    """A network with checkpoints; with `use_reentrant` None it has none."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.network, self.use_reentrant = make("residual"), use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.network(x)
        x = checkpoint(self.network[:5], x, use_reentrant=self.use_reentrant)
        return self.network[5:](x)


def _with_checkpoints(network: nn.Module) -> nn.Module:
    network.set_grad_checkpointing(True)
    return network


_CHECKPOINTED: dict[str, Callable[[], nn.Module]] = {
    "timm resnet10t": lambda: _with_checkpoints(timm.create_model("resnet10t", num_classes=3)),
    "torchvision densenet": lambda: models.DenseNet(8, (2, 2, 2, 2), 8, num_classes=3, memory_efficient=True),
    "checkpoint": lambda: _Checkpointed(False),
}


def _without_checkpoints(network: nn.Module) -> nn.Module:
    for module in network.modules():
        for name, off in (("grad_checkpointing", False), ("memory_efficient", False), ("use_reentrant", None)):
            if hasattr(module, name):
                setattr(module, name, off)
    return network


@pytest.mark.parametrize("fraction", [0.5, 1.0])
@pytest.mark.parametrize("variant", [isnet.StochasticISNet, isnet.DualISNet])
@pytest.mark.parametrize("name", _CHECKPOINTED)
def test_with_gradient_checkpointing_all_is_as_without(name: str, variant: type, fraction: float) -> None:
    network = _CHECKPOINTED[name]().double().train()
    images = _images(32)
    masks, labels = (images[:, :1] > 0.5).double(), torch.tensor([0, 1])
    found = []
    for made in (copy.deepcopy(network), _without_checkpoints(copy.deepcopy(network))):
        generator = torch.Generator().manual_seed(0)
        options = {"generator": generator} if variant is isnet.StochasticISNet else {}
        net = variant(made, isnet.HeatmapLoss(0.1, 1.0), heatmap_fraction=fraction, **options)
        torch.manual_seed(0)
        net.training_loss(images, masks, labels).total.backward()
        found.append([*(each.grad for each in made.parameters()), *made.buffers()])
    assert all(difference(*pair) < 1e-12 for pair in zip(*found, strict=True))


def test_lrp_block_explains_networks_with_gradient_checkpointing() -> None:
    network = _Checkpointed(False).eval()
    found = isnet.LRPBlock(network)(_images(), isnet.Logit(0)).relevance
    network.use_reentrant = None
    assert difference(found, isnet.LRPBlock(network)(_images(), isnet.Logit(0)).relevance) < 1e-12


def test_reentrant_checkpoints_are_refused_as_such() -> None:
    with pytest.raises(isnet.UnsupportedNetworkError, match="use_reentrant=False, or switch it off") as error:
        isnet.LRPFlex(_Checkpointed(True))(_images(), isnet.Logit(0))
    assert _AS_ALWAYS not in str(error.value)


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_full_backward_hooks_are_named(register: str) -> None:
    network = make("residual")
    getattr(network[3], register)(lambda module, *gradients: None)
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"3 \(Branches\)\. A full backward hook .* remove it"):
        isnet.LRPFlex(network)(_images(), isnet.Logit(0))


class _Statistics:
    def __call__(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.std()


@pytest.mark.parametrize(
    "hook",
    [
        lambda module, inputs, output: (output.std(), None)[1],
        functools.partial(lambda name, module, inputs, output: (output.std(), None)[1], "3"),
        _Statistics(),
    ],
)
def test_operations_of_a_logging_hook_are_the_hook_s(hook: Callable) -> None:
    network = make("residual")
    network[3].register_forward_hook(hook)
    with pytest.raises(
        isnet.UnsupportedNetworkError, match=r"'std' in 3 \(Branches\)\. A forward hook .* after the call"
    ):
        isnet.LRPFlex(network)(_images(), isnet.Logit(0))


def test_operations_of_a_logging_hook_before_a_module_are_the_hook_s() -> None:
    network = make("residual")
    network[3].register_forward_pre_hook(lambda module, inputs: (inputs[0].std(), None)[1])
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"'std' in 3 \(Branches\)\. A forward hook"):
        isnet.LRPFlex(network)(_images(), isnet.Logit(0))


class _Product(nn.Module):
    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.weight, self.last = conv(3, 4), nn.Parameter(torch.ones(4, 5)), nn.Linear(5, 2)
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.product(self.first(x).relu().mean((2, 3)), self.weight).relu())


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (lambda x, w: torch.einsum("nc,cd->nd", x, w), "einsum"),
        (lambda x, w: x @ w, "matmul"),
        (lambda x, w: x.mm(w), "mm"),
        (lambda x, w: torch.addmm(torch.zeros(5), x, w), "addmm"),
    ],
)
def test_products_are_to_be_written_as_layers(product: Callable, name: str) -> None:
    with pytest.raises(isnet.UnsupportedNetworkError, match=rf"'{name}' in .*functional\.linear") as error:
        isnet.LRPFlex(_Product(product))(_images(dtype=torch.float32), isnet.Logit(0))
    assert _AS_ALWAYS not in str(error.value)


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def test_what_is_lost_from_sight_is_not_said_to_be_a_relu() -> None:
    network = _Product(lambda x, w: torch.nn.functional.linear(_Own.apply(x), w.t()))
    with pytest.raises(
        isnet.UnsupportedNetworkError, match=r"(lost from sight|switched off) .*custom autograd function"
    ) as error:
        isnet.LRPFlex(network)(_images(dtype=torch.float32), isnet.Logit(0))
    assert _AS_ALWAYS not in str(error.value)


def test_exported_graphs_are_refused_as_such() -> None:
    network = make("plain", dtype=torch.float32)
    exported = torch.export.export(network, (_images(dtype=torch.float32),)).module()
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"'conv2d\.default' .* Exported and traced graphs"):
        isnet.LRPFlex(exported)(_images(dtype=torch.float32), isnet.Logit(0))


class _Passing(TorchFunctionMode):
    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        return func(*args, **(kwargs or {}))


class _InsideContext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = make("residual")

    def forward(self, x: Tensor) -> Tensor:
        with _Passing():
            return self.network(x)


def test_other_libraries_contexts_that_change_nothing_are_followed() -> None:
    network = _InsideContext()
    expected = isnet.LRPFlex(network.network)(_images(), isnet.Logit(0)).relevance
    assert torch.equal(isnet.LRPFlex(network)(_images(), isnet.Logit(0)).relevance, expected)
    for context in (_Passing(), torch.device("cpu"), torch.autograd.graph.save_on_cpu()):
        with context:
            assert torch.equal(isnet.LRPFlex(network.network)(_images(), isnet.Logit(0)).relevance, expected)
