"""Both engines and the heatmap loss's gradient through the ReLU architectures of torchvision and timm.

Depths are cut where that leaves every kind of block in place, and VGG's and AlexNet's wide linear layers are narrowed,
so that the whole takes about a minute.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import timm
import torch
from small_networks import difference, epsilon_map, masks_of, pixels
from timm.layers import ClassifierHead
from timm.models.vgg import ConvMlp
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck, ResNet

import isnet

pytestmark = pytest.mark.slow

_CLASSES = 4


def _tv(name: str, **options: Any) -> nn.Module:
    return getattr(models, name)(num_classes=_CLASSES, **options)


def _timm(name: str, **options: Any) -> nn.Module:
    return timm.create_model(name, num_classes=_CLASSES, **options)


def _relu(name: str, **options: Any) -> nn.Module:
    return _timm(name, act_layer=nn.ReLU, **options)


def _narrowed(name: str) -> nn.Module:
    """VGG or AlexNet with the last layers' 4096 units cut to 32."""
    with torch.device("meta"):
        network = _tv(name)
    linear = [layer for layer in network.classifier if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, *(32 for _ in linear[1:]), _CLASSES]
    narrow = iter([nn.Linear(*pair) for pair in itertools.pairwise(widths)])
    network.classifier = nn.Sequential(
        *(next(narrow) if isinstance(layer, nn.Linear) else layer for layer in network.classifier)
    )
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return network


def _timm_vgg() -> nn.Module:
    with torch.device("meta"):
        network = _timm("vgg11_bn")
    network.features = models.vgg.make_layers(models.vgg.cfgs["A"], batch_norm=True)
    network.pre_logits = ConvMlp(512, 16, 7, mlp_ratio=1)
    network.head = ClassifierHead(16, _CLASSES)
    return network


_ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "torchvision resnet18": partial(_tv, "resnet18"),
    "torchvision resnet50": partial(_tv, "resnet50"),
    "torchvision resnext (1, 1, 1, 1)": lambda: ResNet(
        Bottleneck, [1, 1, 1, 1], _CLASSES, groups=32, width_per_group=4
    ),
    "torchvision wide_resnet (1, 1, 1, 1)": lambda: ResNet(Bottleneck, [1, 1, 1, 1], _CLASSES, width_per_group=128),
    "torchvision densenet121": partial(_tv, "densenet121"),
    "torchvision vgg11": partial(_narrowed, "vgg11"),
    "torchvision vgg11_bn": partial(_narrowed, "vgg11_bn"),
    "torchvision alexnet": partial(_narrowed, "alexnet"),
    "torchvision regnet_x_400mf": partial(_tv, "regnet_x_400mf"),
    "torchvision inception_v3": partial(
        _tv, "inception_v3", aux_logits=False, transform_input=False, init_weights=False
    ),
    "torchvision googlenet": partial(_tv, "googlenet", aux_logits=False, transform_input=False, init_weights=False),
    "torchvision squeezenet1_1": partial(_tv, "squeezenet1_1"),
    "torchvision mnasnet0_5": partial(_tv, "mnasnet0_5"),
    "torchvision shufflenet_v2_x0_5": partial(_tv, "shufflenet_v2_x0_5"),
    "timm resnet10t": partial(_timm, "resnet10t"),
    "timm resnet14t": partial(_timm, "resnet14t"),
    "timm resnet18d": partial(_timm, "resnet18d"),
    "timm resnet26": partial(_timm, "resnet26"),
    "timm resnetblur18": partial(_timm, "resnetblur18"),
    "timm resnetv2_50": partial(_relu, "resnetv2_50", layers=(1, 1, 1, 1)),
    "timm resnext26ts": partial(_relu, "resnext26ts"),
    "timm res2net50_26w_4s": partial(_timm, "res2net50_26w_4s", layers=(1, 1, 1, 1)),
    "timm res2next50": partial(_timm, "res2next50", layers=(1, 1, 1, 1)),
    "timm densenet121": partial(_timm, "densenet121", block_config=(2, 2, 2, 2)),
    "timm regnetx_002": partial(_timm, "regnetx_002"),
    "timm dla34": partial(_timm, "dla34"),
    "timm hrnet_w18_small": partial(_timm, "hrnet_w18_small"),
    "timm vovnet39a": partial(_timm, "vovnet39a"),
    "timm selecsls42b": partial(_timm, "selecsls42b"),
    "timm dpn68": partial(_relu, "dpn68"),
    "timm gernet_s": partial(_timm, "gernet_s"),
    "timm repvgg_a0": partial(_timm, "repvgg_a0"),
    "timm mobileone_s0": partial(_relu, "mobileone_s0"),
    "timm cs3darknet_s": partial(_relu, "cs3darknet_s"),
    "timm mobilenetv1_100": partial(_relu, "mobilenetv1_100"),
    "timm mobilenetv2_035": partial(_relu, "mobilenetv2_035"),
    "timm efficientnet_lite0": partial(_relu, "efficientnet_lite0"),
}
# Its logits are averages of ReLUs, so its last bias is damped like any other.
_LAST_BIAS_COUNTS = {"torchvision squeezenet1_1"}


@pytest.fixture(scope="module", params=_ARCHITECTURES)
def built(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Tensor]:
    name = request.param
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*init")
        torch.manual_seed(0)
        network = _ARCHITECTURES[name]()
        # timm starts residual branches with gamma 0, which would hide whatever happens inside them.
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
    size = 96 if "inception" in name else 64
    return name, network, pixels(2, 3, size, size, dtype=torch.float32)


def _last_bias(network: nn.Module) -> str:
    return [name for name, parameter in network.named_parameters() if parameter.shape == (_CLASSES,)][-1]


def test_there_are_enough_architectures() -> None:
    assert len(_ARCHITECTURES) >= 25


def test_epsilon_maps_train_every_parameter(built: tuple[str, nn.Module, Tensor]) -> None:
    name, network, images = built
    network.train()
    expected = copy.deepcopy(network)
    torch.manual_seed(1)
    logits, relevance, _ = isnet.LRPFlex(network)(images, isnet.JointLogits())
    torch.manual_seed(1)
    plain = expected(images)
    assert torch.allclose(logits, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item())
    assert relevance.shape == (2, 1, *images.shape[1:])
    assert bool(relevance.isfinite().all())
    assert bool(relevance.flatten(1).any(1).all())
    loss = isnet.HeatmapLoss(0.1, 1.0)(relevance, masks_of(images))
    parameters = dict(network.named_parameters())
    gradients = dict(
        zip(parameters, torch.autograd.grad(loss, list(parameters.values()), allow_unused=True), strict=True)
    )
    # In LRP-Flex relevance starts from the logit's gradient, which the last bias does not change.
    unused = set() if name in _LAST_BIAS_COUNTS else {_last_bias(network)}
    assert {key for key, gradient in gradients.items() if gradient is None} == unused
    assert all(bool(gradients[key].isfinite().all()) for key in gradients.keys() - unused)
    silent = [key for key in gradients.keys() - unused if not gradients[key].any()]
    assert len(silent) <= 0.05 * len(gradients), silent


def test_zplus_maps(built: tuple[str, nn.Module, Tensor]) -> None:
    _, network, images = built
    network.train()
    with torch.no_grad():
        explain = isnet.LRPFlex(network, rules=("zplus", "epsilon"))
        logits, relevance, _ = explain(images, isnet.JointLogits())
    assert logits.shape == (2, _CLASSES)
    assert relevance.shape == (2, 2, *images.shape[1:])
    assert bool(relevance.isfinite().all())
    assert bool(relevance.flatten(2).any(2).all())


def test_epsilon_maps_equal_a_rewrite_with_patched_relus(
    built: tuple[str, nn.Module, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, network, images = built
    network, images, epsilon = copy.deepcopy(network).double().eval(), images.double(), 0.1
    found = isnet.LRPFlex(network, epsilon, "epsilon")(images, isnet.JointLogits()).relevance[:, 0]
    assert difference(found, epsilon_map(network, images, epsilon, lambda logits: logits.sum(1), monkeypatch)) < 1e-8


# ---- LRP-Block ----

_OTHERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision vgg16": partial(_narrowed, "vgg16"),
    "torchvision vgg16_bn": partial(_narrowed, "vgg16_bn"),
    "timm resnet18": partial(_timm, "resnet18"),
    "timm resnet26d": partial(_timm, "resnet26d"),
    "timm vgg11_bn": _timm_vgg,
}
_SIZES = {
    "torchvision vgg11": (64, 64),
    "torchvision vgg11_bn": (64, 48),
    "torchvision vgg16": (33, 40),
    "torchvision vgg16_bn": (33, 40),
    "torchvision resnet18": (64, 48),
    "torchvision resnet50": (32, 48),
    "torchvision wide_resnet (1, 1, 1, 1)": (32, 32),
    "torchvision resnext (1, 1, 1, 1)": (32, 33),
    "torchvision densenet121": (37, 45),
    "torchvision googlenet": (33, 47),
    "torchvision shufflenet_v2_x0_5": (48, 33),
    "torchvision regnet_x_400mf": (35, 32),
    "torchvision mnasnet0_5": (32, 41),
    "timm resnet18": (47, 33),
    "timm resnet26d": (49, 35),
    "timm vgg11_bn": (64, 40),
    "timm densenet121": (33, 33),
    "timm dla34": (32, 64),
    "timm repvgg_a0": (32, 35),
}


def _built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return (_ARCHITECTURES | _OTHERS)[name]().train(), torch.rand(2, 3, *_SIZES[name])


@pytest.mark.parametrize("name", _SIZES)
def test_lrp_block_trains_with_both_rules(name: str) -> None:
    network, images = _built(name)
    masks = torch.zeros_like(images[:, :1])
    masks[:, :, 8:24, 8:24] = 1
    logits, relevance, _ = isnet.LRPBlock(network)(images, isnet.JointLogits())
    assert logits.shape == (2, _CLASSES)
    assert relevance.shape == (2, 2, *images.shape[1:])
    assert bool(relevance.isfinite().all())
    isnet.HeatmapLoss(c1=1.0, c2=5.0)(relevance, masks).backward()
    untouched = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert untouched == {_last_bias(network)}


def _with_lively_norms(network: nn.Module) -> nn.Module:
    """Give batch norms statistics under which activations keep their size, and gammas of both signs."""
    with torch.no_grad():
        network.train()(torch.rand(8, 3, 96, 96))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand_like(module.weight) + 0.5)
                module.weight[::7] *= -1
                module.bias.copy_(0.2 * torch.randn_like(module.bias))
    return network.eval()


@pytest.mark.parametrize(
    "name",
    [
        "torchvision resnet18",
        "torchvision densenet121",
        "torchvision googlenet",
        "torchvision shufflenet_v2_x0_5",
        "timm resnet26d",
        "timm vgg11_bn",
    ],
)
def test_as_epsilon_vanishes_the_map_of_lrp_block_is_that_of_lrp_flex(name: str) -> None:
    """Without epsilon both engines are LRP-0, and LRP-Flex knows nothing of layers and their order."""
    network, images = _built(name)
    network, images = _with_lively_norms(network).double(), images[:1].double()
    with torch.no_grad():
        block, flex = (
            engine(network, rules=("epsilon",), epsilon=1e-13)(images, isnet.Logit(1)).relevance
            for engine in (isnet.LRPBlock, isnet.LRPFlex)
        )
    assert difference(block, flex) < 1e-4
