"""What a result depends on besides the configuration: software, hardware, state of the repository."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = (
    "isnet-bench",
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "lightning",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
)


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on; None: not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def hardware(threads: int, gpu: str | None) -> dict[str, Any]:
    """Describe the machine: processor, cores, threads that were used, the GPU that was used, memory in GiB."""
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "gpu": gpu,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


def git() -> dict[str, Any]:
    """Return this repository's commit, and whether files differ or are not in it; both None outside a clone."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=normal")
    return {"git_commit": commit, "git_dirty": None if commit is None or changes is None else bool(changes)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ("git", *arguments),
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
