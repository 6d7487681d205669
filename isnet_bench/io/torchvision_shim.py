"""Let torchvision be imported where only its compiled operators are out of reach.

The package index serves one torchvision build per platform. On Linux that build is linked against CUDA, so beside a
CPU-only torch its extension cannot be loaded and ``import torchvision`` stops at ``operator torchvision::nms does not
exist``. Nothing in this project calls these operators (they belong to detection), so declaring their schemas is
enough for the import to succeed; calling one still fails with torch's own message.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

_SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def ensure() -> None:
    """Declare torchvision's operators if its compiled extension cannot be loaded, so that it can be imported later.

    To be called before the first import of torchvision or timm. torchvision itself is not imported, which would take
    as long as importing torch.
    """
    import torch

    if sys.platform != "linux" or "torchvision" in sys.modules or hasattr(torch.ops.torchvision, "nms"):
        return
    package = find_spec("torchvision")
    if package is None or package.origin is None or _loads_extension(Path(package.origin).parent):
        return
    for name, schema in _SCHEMAS.items():
        torch.library.define(name, schema)


def _loads_extension(folder: Path) -> bool:
    import torch

    for extension in (folder / f"_C{suffix}" for suffix in EXTENSION_SUFFIXES):
        if extension.is_file():
            try:
                torch.ops.load_library(extension)
            except OSError:
                return False
            return True
    return False
