"""Classifier architectures by name: this project's small ResNet, and all of timm and torchvision."""

from __future__ import annotations

import difflib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from huggingface_hub import constants
from torch import Tensor, nn

from isnet_bench.config import Normalization
from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError

torchvision_shim.ensure()

import timm  # noqa: E402
from timm.models.resnet import BasicBlock, ResNet  # noqa: E402

SMALL = "resnet_small"


def create(name: str, classes: int, channels: int, image_size: int, **options: Any) -> nn.Module:
    """Make a classifier of images (N, channels, image_size, image_size) with random weights.

    The name is "resnet_small", that of a model of timm, or else that of one of torchvision's classifiers. Options are
    passed on; the size matters only to architectures that must know it. Raises BenchError if the name is unknown
    (similar ones are listed) or if the architecture does not take the options.
    """
    try:
        if name == SMALL:
            return _small_resnet(classes, channels, **options)
        if timm.is_model(name):
            return _of_timm(name, num_classes=classes, in_chans=channels, **options)
        # Imported where it is needed: its import takes longer than that of all else here together.
        from torchvision import models

        if name in models.list_models(models):
            if {"weights", "pretrained"} & options.keys():
                raise BenchError(
                    f"backbone {name} is torchvision's, which starts from random weights here: for pretrained ones "
                    "name a model of timm, with the option pretrained: true"
                )
            network = models.get_model(name, weights=None, num_classes=classes, **options)
            if getattr(network, "aux_logits", False):
                raise BenchError(f"backbone {name} returns more than logits: give it the option aux_logits: false")
            return _with_channels(network, channels)
    except (TypeError, ValueError) as error:
        raise BenchError(f"backbone {name} cannot be made with the options {options}: {error}") from error
    known = [SMALL, *timm.list_models(), *models.list_models(models)]
    similar = ", ".join(difflib.get_close_matches(name, known, n=4)) or f"{SMALL}, resnet18, densenet121"
    raise BenchError(f"unknown backbone {name!r}; similar or common ones: {similar}")


def create_seeing(
    name: str,
    classes: int,
    channels: int,
    image_size: int,
    shown: int | None = None,
    normalization: Normalization | None = None,
    **options: Any,
) -> nn.Module:
    """Make a classifier whose network sees images otherwise than it is given them, in [0, 1].

    Grey images are seen as `shown` equal channels (None: as they are), and channels by `normalization`. Both happen
    before the first convolution, so that layers keep their names, and explanations are those of the images. The rest is
    as in `create`. Raises BenchError, too, if images with several channels are to be repeated, or `normalization` is
    for another number of channels.
    """
    seen = shown or channels
    if channels not in (1, seen):
        raise BenchError(
            f"backbone.channels is {shown}, but images have {channels} channels, and only grey ones can be repeated; "
            "leave it out"
        )
    if normalization is not None and len(normalization.mean) != seen:
        raise BenchError(
            f"backbone.normalization is for {len(normalization.mean)} channels, and the network sees {seen}; give one "
            "mean and one std for each"
        )
    network = create(name, classes, seen, image_size, **options)
    if seen != channels:
        _first_convolution(network)[1].register_forward_pre_hook(_repeated)
    if normalization is not None:
        _normalize(_first_convolution(network)[1], normalization)
    return network


def _of_timm(name: str, **options: Any) -> nn.Module:
    """Make a model of timm; pretrained weights come from a file, or from the cache where they cannot be downloaded."""
    weights = options.get("pretrained")
    if isinstance(weights, str):
        return _of_file(name, weights, **{**options, "pretrained": True})
    if not weights:
        return timm.create_model(name, **options)
    try:
        # Asked once: the hub's own client repeats its question for most of a minute.
        with mock.patch.object(
            constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT)
        ):
            return timm.create_model(name, **options)
    except (OSError, RuntimeError) as error:
        raise BenchError(
            f"the pretrained weights of {name} cannot be had ({str(error).splitlines()[0]}): with network access, make "
            f"this model once, and copy the cache to where there is none; or let the option pretrained name a file of "
            f"them; or leave the option pretrained out"
        ) from error


def _of_file(name: str, weights: str, **options: Any) -> nn.Module:
    """Make a model of timm that starts from weights in a file, all but those of its head if that has other classes."""
    if not Path(weights).is_file():
        raise BenchError(
            f"there is no file {weights}, which the option pretrained names: put timm's weights of {name} there "
            "(model.safetensors of its page on the Hugging Face hub), or correct the path"
        )
    try:
        return timm.create_model(name, pretrained_cfg_overlay={"file": weights}, **options)
    # Of what is no such file, the readers raise whatever they stumble over.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(f"{weights} does not hold timm's weights of {name} ({reason}): name another file") from error


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _small_resnet(classes: int, channels: int, **options: Any) -> ResNet:
    """A ResNet for small images that trains in seconds on one core: timm's own, only narrow and short."""
    settings = {
        "layers": (1, 1, 1),
        "channels": (16, 32, 64),
        "stem_type": "deep",
        "stem_width": 8,
        **options,
    }
    network = ResNet(BasicBlock, num_classes=classes, in_chans=channels, **settings)
    for stage in range(len(settings["channels"]) + 1, 5):
        network.add_module(f"layer{stage}", nn.Identity())
    return network


def _with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Give a torchvision model, which takes RGB images, another number of input channels."""
    name, first = _first_convolution(network)
    if first.in_channels != channels:
        fresh = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,
            first.stride,
            first.padding,
            first.dilation,
            bias=first.bias is not None,
        )
        network.set_submodule(name, fresh)
    return network


def _first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d))


def _repeated(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Show a grey image as equal channels."""
    return (inputs[0].expand(-1, convolution.in_channels, -1, -1),)


def _normalize(convolution: nn.Conv2d, normalization: Normalization) -> None:
    # Buffers, so that they go where the network goes; constants, so that they are none of its weights.
    for key in ("mean", "std"):
        values = torch.tensor(getattr(normalization, key)).view(1, -1, 1, 1)
        convolution.register_buffer(f"pixel_{key}", values, persistent=False)
    convolution.register_forward_pre_hook(_normalized)


def _normalized(convolution: nn.Conv2d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return ((inputs[0] - convolution.pixel_mean) / convolution.pixel_std,)
