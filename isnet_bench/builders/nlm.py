"""What the two tuberculosis sets of the U.S. National Library of Medicine share."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from isnet_bench.errors import BenchError

__all__ = ["LABELS", "read_coded"]

_FINDINGS = {"0": "normal", "1": "tuberculosis"}
# Tuberculosis is none of the three labels that the collections have in common.
LABELS = {"normal": "normal", "tuberculosis": ""}


def read_coded(folder: Path, prefix: str) -> pd.DataFrame:
    """Read ``CXR_png/``, where a file's name is its metadata: ``<prefix>_<number>_<0 normal, 1 tuberculosis>.png``.

    All are PA views, one for each patient.

    Raises
    ------
    BenchError
        If the folder holds no such file.
    """
    code = re.compile(rf"({prefix}_\d+)_([01])\.png")
    matches = [code.fullmatch(path.name) for path in sorted((folder / "CXR_png").glob(f"{prefix}_*.png"))]
    rows = [(f"CXR_png/{match[0]}", match[1], _FINDINGS[match[2]]) for match in matches if match]
    if not rows:
        raise BenchError(f"{folder} holds no CXR_png/{prefix}_NUMBER_0.png or _1.png")
    return pd.DataFrame(rows, columns=["image", "patient", "finding"]).assign(view="PA")
