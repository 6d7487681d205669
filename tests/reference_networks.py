"""Read the reference fixtures, and rebuild the networks and losses whose outputs they hold."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import isnet

FOLDER = Path(__file__).parent / "reference"
_BLOCKS = {"BasicBlock": BasicBlock, "Bottleneck": Bottleneck}
_NORMALIZATIONS = {"absRoIMean": "abs_roi_mean", "RoIMean": "roi_mean", "none": "none"}


@cache
def load_fixture(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of ``reference/<name>.npz`` and its ``meta`` record, shared: do not change them."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files if key != "meta"}
        return arrays, json.loads(str(stored["meta"]))


def tensor(arrays: dict[str, np.ndarray], key: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return one array as a tensor; floating-point arrays in the type asked for."""
    values = torch.from_numpy(np.array(arrays[key]))
    return values.to(dtype) if values.is_floating_point() else values


def variants(family: str) -> list[Any]:
    """Return the trained variants of an engine, each with the name of its fixture, for parametrisation."""
    return [
        pytest.param(name, variant, id=f"{name}-{variant['id']}")
        for name in ("f_grad_seq_plain", "f_grad_seq_bn", "f_grad_resnet")
        for variant in load_fixture(name)[1]["variants"]
        if variant["family"] == family
    ]


def heatmap_loss(case: dict[str, Any], **options: Any) -> isnet.HeatmapLoss:
    """Make the heatmap loss of a fixture's case; one range serves all maps unless the rule is z+e."""

    def cut(key: str) -> Any:
        values = case[key]
        return values[0] if isinstance(values, list) and (len(values) == 1 or case.get("rule") == "e") else values

    return isnet.HeatmapLoss(
        cut("cut"),
        cut("cut2"),
        w1=case["A"],
        w2=case["B"],
        decay=case["d"],
        saturation=case["E"],
        foreground=case.get("fg", case.get("alternativeForeground")).lower(),
        normalization=_NORMALIZATIONS[case["norm"]],
        channel_decay=case.get("channelGWRP", 1.0),
        **options,
    )


def build_network(
    meta: dict[str, Any], arrays: dict[str, np.ndarray], prefix: str = "w/", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Rebuild the network of a fixture, in evaluation mode."""
    arch = meta["arch"]
    network = _sequential(arch["layers"]) if arch["kind"] == "seq" else _resnet(arch)
    weights = {key.removeprefix(prefix): tensor(arrays, key) for key in arrays if key.startswith(prefix)}
    network.load_state_dict(weights)
    return network.to(dtype).eval()


def _sequential(layers: list[list[Any]]) -> nn.Sequential:
    return nn.Sequential(*(_layer(*entry) for entry in layers))


def _layer(kind: str, *options: int) -> nn.Module:
    if kind == "conv":
        inputs, outputs, kernel, stride, padding, bias = options
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bool(bias))
    makers = {
        "bn": nn.BatchNorm2d,
        "relu": nn.ReLU,
        "maxpool": nn.MaxPool2d,
        "avgpool": nn.AvgPool2d,
        "flatten": nn.Flatten,
        "linear": nn.Linear,
    }
    return makers[kind](*options)


def _resnet(arch: dict[str, Any]) -> ResNet:
    """Build torchvision's ResNet with other widths: its constructor knows only 64, 128, 256, 512."""
    block, widths = _BLOCKS[arch["block"]], arch["widths"]
    with torch.device("meta"):
        network = ResNet(block, arch["blocks"], num_classes=arch["classes"])
    network.inplanes = widths[0]
    network.conv1 = nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(widths[0])
    for stage, (width, blocks) in enumerate(zip(widths, arch["blocks"], strict=True)):
        layers = network._make_layer(block, width, blocks, stride=1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layers)
    network.fc = nn.Linear(widths[-1] * block.expansion, arch["classes"])
    return network
