"""What LRP-Flex cannot explain is refused by name, and never explained wrongly in silence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from small_networks import conv, difference, pixels
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import isnet


def _images(size: int = 8) -> Tensor:
    return pixels(2, 3, size, size, dtype=torch.float32)


# ---- modules ----


@pytest.mark.parametrize(
    "module",
    [
        nn.GELU(),
        nn.SiLU(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.ELU(),
        nn.ReLU6(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.Softplus(),
        nn.Mish(),
        nn.Softmax(1),
        nn.LogSoftmax(1),
        nn.Threshold(0.0, 0.0),
        nn.LayerNorm(8),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4),
        nn.LocalResponseNorm(2),
        timm.layers.Swish(),
        timm.layers.HardSwish(),
        timm.layers.GELU(),
        timm.layers.LayerNorm2d(4),
        timm.layers.HardMish(),
    ],
    ids=lambda module: f"{type(module).__module__.split('.')[0]}-{type(module).__name__}",
)
def test_other_nonlinearities_are_named_with_a_remedy(module: nn.Module) -> None:
    network = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Sequential(conv(4, 4), module), nn.Flatten(), nn.Linear(256, 2))
    with pytest.raises(isnet.UnsupportedNetworkError, match=r"2\.1") as refusal:
        isnet.LRPFlex(network)(_images(), isnet.Logit(0))
    assert type(module).__name__ in str(refusal.value)
    assert "act_layer=torch.nn.ReLU" in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (partial(timm.create_model, "convnext_atto"), "stem.1"),
        (partial(timm.create_model, "vit_tiny_patch16_224", img_size=32), "blocks.0.norm1"),
        (partial(timm.create_model, "seresnet18"), "layer1.0.se"),
        (partial(timm.create_model, "resnest14d"), "layer1.0.conv2"),
        (partial(timm.create_model, "efficientnet_b0", act_layer=nn.ReLU), "blocks.0.0.se"),
        (partial(timm.create_model, "starnet_s050", act_layer=nn.ReLU), "stages.0"),
        (torchvision.models.mobilenet_v2, "features.0.2"),
        (torchvision.models.regnet_y_400mf, "block1"),
    ],
)
def test_known_architectures_with_other_operations_are_refused(make: Callable[[], nn.Module], named: str) -> None:
    network = make().eval()
    with pytest.raises(isnet.UnsupportedNetworkError) as refusal:
        isnet.LRPFlex(network, input_rule="epsilon")(_images(32), isnet.Logit(0))
    assert named in str(refusal.value)


def test_long_lists_of_offenders_are_cut() -> None:
    network = nn.Sequential(*(nn.Sigmoid() for _ in range(30)))
    with pytest.raises(isnet.UnsupportedNetworkError, match="22 more"):
        isnet.LRPFlex(network)


# ---- operations ----


class _Middle(nn.Module):
    """Convolution, ReLU, `middle`, mean, linear; `middle` may use a second convolution."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.second, self.last = conv(3, 4), conv(4, 4), nn.Linear(4, 2)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, F.relu(self.first(x))).mean((2, 3)))


_OPERATIONS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "gelu": lambda net, x: F.gelu(net.second(x)),
    "silu": lambda net, x: F.silu(net.second(x)),
    "sigmoid": lambda net, x: torch.sigmoid(net.second(x)),
    "tanh": lambda net, x: net.second(x).tanh(),
    "leaky_relu": lambda net, x: F.leaky_relu(net.second(x)),
    "relu6": lambda net, x: F.relu6(net.second(x)),
    "clamp": lambda net, x: net.second(x).clamp(min=0),
    "clamp_": lambda net, x: net.second(x).clamp_(0, 1),
    "softmax": lambda net, x: net.second(x).softmax(1),
    "gate of two activations": lambda net, x: x * net.second(x),
    "quotient of two activations": lambda net, x: net.second(x) / (x + 1),
    "quotient by an activation": lambda net, x: 1 / (net.second(x) + 9),
    "square": lambda net, x: net.second(x).square(),
    "power": lambda net, x: net.second(x) ** 2,
    "abs": lambda net, x: net.second(x).abs(),
    "exp": lambda net, x: net.second(x).exp(),
    "maximum": lambda net, x: torch.maximum(net.second(x), x),
    "maximum of all": lambda net, x: net.second(x) - net.second(x).max(),
    "maximum of two": lambda net, x: torch.max(net.second(x), x),
    "maximum over channels": lambda net, x: net.second(x).amax(1, keepdim=True),
    "maximum over rows": lambda net, x: net.second(x).max(2, keepdim=True).values,
    "stack with zeros": lambda net, x: torch.stack([net.second(x), torch.zeros_like(x)]).sum(0),
    "where": lambda net, x: torch.where(x > 0.1, net.second(x), x),
    "masked_fill": lambda net, x: net.second(x).masked_fill(x > 0.1, 0),
    "detach": lambda net, x: net.second(x).detach(),
    "data": lambda net, x: net.second(x).data,
    "layer_norm": lambda net, x: F.layer_norm(net.second(x), (8, 8)),
    "instance_norm": lambda net, x: F.instance_norm(net.second(x)),
    "group_norm": lambda net, x: F.group_norm(net.second(x), 2),
    "normalize": lambda net, x: F.normalize(net.second(x)),
    "attention": lambda net, x: F.scaled_dot_product_attention(x, x, x),
    "matmul of two activations": lambda net, x: x @ net.second(x),
    "dynamic weights": lambda net, x: F.conv2d(
        x, net.second(x)[0, :, :3, :3].unsqueeze(0).expand(4, 4, 3, 3), padding=1
    ),
    "rounding": lambda net, x: torch.div(net.second(x), 0.1, rounding_mode="floor"),
    "number taken from an activation": lambda net, x: net.second(x) * (1 + x[0, 0, 0, 0].item()),
    "selection by a mask": lambda net, x: net.second(x)[:, net.second(x).mean((0, 2, 3)) > 0],
    "rounding to integers": lambda net, x: net.second(x).to(torch.int64).to(x.dtype),
    "place taken from an activation": lambda net, x: net.second(x) * (1 + x.argmax().item()),
    "sum with a detached activation": lambda net, x: x + net.second(x).detach(),
}


@pytest.mark.parametrize("name", _OPERATIONS)
def test_operations_without_a_rule_are_refused(name: str) -> None:
    network = _Middle(lambda net, x: F.relu(_OPERATIONS[name](net, x)))
    for rules in (("epsilon",), ("zplus",)):
        with pytest.raises(isnet.UnsupportedNetworkError, match="_Middle"):
            isnet.LRPFlex(network, rules=rules)(_images(), isnet.JointLogits())


@pytest.mark.parametrize(
    ("middle", "named"),
    [
        (lambda net, x: F.pad(net.second(x), (1, 1), value=1.0), "pad"),
        (lambda net, x: F.conv2d(x, net.second.weight, net.second(x).mean((0, 2, 3)), padding=1), "conv2d"),
    ],
)
def test_linear_operations_without_a_zplus_rule_are_refused(middle: Callable, named: str) -> None:
    network = _Middle(lambda net, x: F.relu(middle(net, x)))
    with pytest.raises(isnet.UnsupportedNetworkError, match=named):
        isnet.LRPFlex(network, rules=("zplus",))(_images(), isnet.JointLogits())


_SCRIPTING = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


# ---- never wrong in silence ----
# Each of these computes relu(second(x)) in a way in which a ReLU, or the way back to the images, can slip past the
# engine. The map must be that of the plain way to write it, or the network must be refused.


def _set_by_slices(net: nn.Module, x: Tensor) -> Tensor:
    z = net.second(x)
    out = torch.zeros(z.shape)
    out[:, ::2] = z[:, ::2]
    out[:, 1::2] = z[:, 1::2]
    return F.relu(out)


def _set_into_another_activation(net: nn.Module, x: Tensor) -> Tensor:
    out = x.clone()
    out[:, :] = net.second(x)
    return F.relu(out)


def _in_place_through_a_view(net: nn.Module, x: Tensor) -> Tensor:
    z = net.second(x)
    z.view(-1).relu_()
    return z


def _changed_through_a_view(net: nn.Module, x: Tensor) -> Tensor:
    z = F.conv2d(x, net.second.weight, padding=1)
    z.view(len(x), 4, -1).add_(net.second.bias[:, None])
    return F.relu(z)


class _OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.numpy().clip(0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0] > 0)


_HIDDEN: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a mask of booleans": lambda net, x: (lambda z: z * (z > 0))(net.second(x)),
    "a mask of numbers": lambda net, x: (lambda z: z * (z > 0).float())(net.second(x)),
    "a mask of signs": lambda net, x: (lambda z: z.mul(z.gt(0).to(z.dtype)))(net.second(x)),
    "slices": _set_by_slices,
    "slices of an activation": _set_into_another_activation,
    "vmap": lambda net, x: torch.vmap(lambda image: F.relu(net.second(image[None]))[0])(x),
    "a function of one's own": lambda net, x: _OwnFunction.apply(net.second(x)),
    "no_grad": lambda net, x: torch.no_grad()(lambda: F.relu(net.second(x)))(),
    "in place through a view": _in_place_through_a_view,
    "changed through a view": _changed_through_a_view,
}


def _right_or_refused(
    network: nn.Module, plain: nn.Module, also: tuple[type[Exception], ...] = (), **options: Any
) -> None:
    images = _images()
    assert torch.allclose(network(images), plain(images), atol=1e-6)
    expected = isnet.LRPFlex(plain, **options)(images, isnet.JointLogits()).relevance
    try:
        found = isnet.LRPFlex(network, **options)(images, isnet.JointLogits()).relevance
    except (isnet.UnsupportedNetworkError, *also):
        return
    assert difference(found, expected) < 1e-4


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("name", _HIDDEN)
def test_hidden_relus_are_found_or_refused(name: str, input_rule: str, rule: str) -> None:
    plain = _Middle(lambda net, x: F.relu(net.second(x)))
    _right_or_refused(_Middle(_HIDDEN[name]), plain, input_rule=input_rule, rules=(rule,))


@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
def test_a_branch_out_of_sight_is_found_or_refused(input_rule: str) -> None:
    class Branches(_Middle):
        def __init__(self, hidden: bool) -> None:
            super().__init__(lambda net, x: x)
            self.hidden = hidden

        def forward(self, x: Tensor) -> Tensor:
            def branch(images: Tensor) -> Tensor:
                return F.relu(F.conv2d(images, self.second.weight[:, :3], padding=1))

            hidden = torch.vmap(lambda image: branch(image[None])[0])(x) if self.hidden else branch(x)
            return self.last((F.relu(self.first(x)) + hidden).mean((2, 3)))

    _right_or_refused(Branches(True), Branches(False), input_rule=input_rule)


@_SCRIPTING
@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
@pytest.mark.parametrize("input_rule", ["epsilon", "zb"])
@pytest.mark.parametrize("scripted", ["whole", "first", "middle", "branch"])
def test_scripted_modules_are_explained_rightly_or_refused(scripted: str, input_rule: str, rule: str) -> None:
    torch.manual_seed(0)
    parts = [
        nn.Sequential(conv(3, 4), nn.ReLU()),
        nn.Sequential(conv(4, 4), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
    ]

    class Summed(nn.Module):
        def __init__(self, branch: nn.Module) -> None:
            super().__init__()
            self.branch = branch

        def forward(self, x: Tensor) -> Tensor:
            return x + self.branch(x)

    if scripted == "branch":
        plain, network = (
            nn.Sequential(parts[0], Summed(branch), parts[2]) for branch in (parts[1], torch.jit.script(parts[1]))
        )
    elif scripted == "whole":
        plain, network = nn.Sequential(*parts), torch.jit.script(nn.Sequential(*parts))
    else:
        changed = {"first": 0, "middle": 1}[scripted]
        plain = nn.Sequential(*parts)
        network = nn.Sequential(
            *(torch.jit.script(part) if index == changed else part for index, part in enumerate(parts))
        )
    _right_or_refused(network, plain, input_rule=input_rule, rules=(rule,))


@_SCRIPTING
def test_scripted_other_nonlinearities_are_refused() -> None:
    gelu = torch.jit.script(nn.Sequential(conv(4, 4), nn.GELU()))
    network = nn.Sequential(conv(3, 4), nn.ReLU(), gelu, nn.Flatten(), nn.Linear(256, 2))
    with pytest.raises(isnet.UnsupportedNetworkError):
        isnet.LRPFlex(network)(_images(), isnet.Logit(0))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_checkpointed_activations_are_explained_rightly_or_refused(rule: str, use_reentrant: bool) -> None:
    network = _Middle(lambda net, x: checkpoint(lambda y: F.relu(net.second(y)), x, use_reentrant=use_reentrant))
    # torch itself refuses what it cannot compute again.
    _right_or_refused(network, _Middle(lambda net, x: F.relu(net.second(x))), (RuntimeError,), rules=(rule,))


# ---- what the network returns ----


@pytest.mark.parametrize(("name", "size"), [("inception_v3", 299), ("googlenet", 64)])
def test_auxiliary_outputs_are_refused_with_a_remedy(name: str, size: int) -> None:
    make = getattr(torchvision.models, name)
    network = make(num_classes=3, aux_logits=True, transform_input=False, init_weights=False).train()
    with pytest.raises(isnet.UnsupportedNetworkError, match="aux_logits=False"):
        isnet.LRPFlex(network)(_images(size), isnet.Logit(0))


@pytest.mark.parametrize(
    "network", [conv(3, 4), nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(0), nn.Linear(512, 2))]
)
def test_outputs_that_are_no_logits_are_refused(network: nn.Module) -> None:
    with pytest.raises(isnet.UnsupportedNetworkError, match="logits of shape"):
        isnet.LRPFlex(network, input_rule="epsilon")(_images(), isnet.Logit(0))


def test_a_layer_that_returns_no_tensor_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    class Network(_Middle):
        def __init__(self) -> None:
            super().__init__(lambda net, x: net.pair(net.second(x))[0])
            self.pair = Pair()

    with pytest.raises(ValueError, match="'pair' returns"):
        isnet.LRPFlex(Network(), layers=("pair",))(_images(), isnet.Logit(0))
