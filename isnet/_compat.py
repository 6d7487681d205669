"""Let torchvision be imported where only its compiled operators are out of reach.

The package index serves one torchvision build per platform. On Linux that build is linked against CUDA, so beside a
CPU-only torch its extension cannot be loaded and ``import torchvision`` stops at ``operator torchvision::nms does not
exist``. Nothing in this project calls these operators (they belong to detection), so declaring their schemas is
enough for the import to succeed; calling one still fails with torch's own message.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

_SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def ensure_torchvision_imports() -> None:
    """Import torchvision, declaring its missing operators first if its compiled extension cannot be loaded."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "does not exist" not in str(error) or "torchvision::" not in str(error):
            raise
        for name, schema in _SCHEMAS.items():
            torch.library.define(name, schema)
        importlib.import_module("torchvision")
