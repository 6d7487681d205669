"""The Python blocks of README and of the pages of docs/ run, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pages
import pytest
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

# Tested for its outcome, too.
_SHORTCUT = "docs/ignore_background.md"
WITH_BLOCKS = [page for page in pages.PAGES if pages.blocks(page, "python") and page != _SHORTCUT]
_SCRIPT = "# script.py"
_LOADER = """
from isnet_bench.io import torchvision_shim
torchvision_shim.ensure()
import torch
rank = int(__import__("os").environ["RANK"])
torch.manual_seed(rank)
masks = torch.ones(4, 1, 32, 32)
masks[: 2 * rank] = torch.nan
loader = [(torch.rand(4, 3, 32, 32), masks, torch.tensor([0, 1, 2, 0]))] * 2
"""
_AFTER = """
whole = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
print("norm", whole.double().norm().item())
"""

pytestmark = pytest.mark.slow


def _given() -> dict[str, Any]:
    """Return what a page takes as the reader's own: images, masks (one of which is not there), labels and a loader."""
    torch.manual_seed(0)
    images, masks, labels = torch.rand(8, 3, 64, 64), torch.zeros(8, 1, 64, 64), torch.arange(8) % 3
    masks[..., 16:48, 16:48] = 1
    masks[3] = torch.nan
    loader = DataLoader(TensorDataset(images, masks, labels), batch_size=4)
    return {"images": images, "masks": masks, "labels": labels, "loader": loader}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_the_blocks_of_a_page_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model
    # No weights are fetched here.
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: made(name, **options))
    names = _given()
    for block in pages.blocks(page, "python"):
        if block.startswith(_SCRIPT):
            continue
        exec(compile(block, page, "exec"), names)
        if "backward()" in block and "network" in names:
            assert all(parameter.isfinite().all() for parameter in names["network"].parameters())


def test_the_tutorials_isnet_withstands_the_mark_that_its_standard_classifier_follows() -> None:
    names: dict[str, Any] = {}
    for block in pages.blocks(_SHORTCUT, "python"):
        exec(block, names)
    standard, isnet = (names["accuracies"](names[name]) for name in ("standard", "model"))
    assert standard["iid"] == 1
    assert standard["deceiving"] == 0
    assert isnet["iid"] > 0.9
    assert min(isnet.values()) > 0.8


def test_the_script_trains_the_same_weights_in_two_processes(tmp_path: Path) -> None:
    (block,) = [block for block in pages.blocks("docs/training.md", "python") if block.startswith(_SCRIPT)]
    # Both processes must begin with the same weights by DDP alone.
    before, end = block.split("torch.distributed.destroy_process_group()")
    (tmp_path / "script.py").write_text(_LOADER + before + _AFTER + "torch.distributed.destroy_process_group()" + end)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    answer = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert answer.returncode == 0, answer.stderr
    norms = re.findall(r"norm (\S+)", answer.stdout)
    assert len(norms) == 2
    assert float(norms[0]) == float(norms[1])


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    told = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(pages.ROOT)}
    answer = subprocess.run(build, cwd=pages.ROOT, env=told, capture_output=True, text=True, timeout=300)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert "RandomLogit" in (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
