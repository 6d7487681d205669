"""The blocks of docs/training.md run, one after the other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
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


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Return the names that the blocks share."""
    torch.manual_seed(0)
    masks = torch.zeros(8, 1, 32, 32)
    masks[..., 8:24, 8:24] = 1
    masks[3] = torch.nan
    data = TensorDataset(torch.rand(8, 3, 32, 32), masks, torch.arange(8) % 3)
    names = {"loader": DataLoader(data, batch_size=4)}
    exec(BLOCKS[0], names)
    return names


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("block", [block for block in BLOCKS[1:] if not block.startswith(_SCRIPT)])
def test_a_block_runs(block: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model
    # No weights are fetched here.
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: made(name, **options))
    names = dict(names)
    exec(block, names)
    if "backward()" in block:
        assert all(parameter.isfinite().all() for parameter in names["network"].parameters())


def test_the_script_trains_the_same_weights_in_two_processes(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if block.startswith(_SCRIPT)]
    # Both processes must begin with the same weights by DDP alone.
    before, end = block.split("torch.distributed.destroy_process_group()")
    (tmp_path / "script.py").write_text(_LOADER + before + _AFTER + "torch.distributed.destroy_process_group()" + end)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "script.py"]
    answer = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert answer.returncode == 0, answer.stderr
    norms = re.findall(r"norm (\S+)", answer.stdout)
    assert len(norms) == 2
    assert float(norms[0]) == float(norms[1])
