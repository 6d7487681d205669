"""One file for a data repository: what finished runs learnt and predicted, and the published numbers and figures."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import digest, replacing, write_text
from isnet_bench.layout import HISTORY, METRICS, PREDICTIONS, RECORD, WEIGHTS, Layout

log = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
"""Digests of all files of an archive, as ``sha256sum --check`` reads them."""
_OF_A_RUN = (WEIGHTS, HISTORY, RECORD, METRICS, PREDICTIONS)


def archive(results: Path, published: Path, out: Path) -> None:
    """Write a tar file of all finished runs below some results and of published snapshots, and its digest beside it.

    A run is finished when it was evaluated. Images of the data and heatmaps are left out, but for those in `published`.
    The same files make the same archive, byte for byte. Raises BenchError if no run is finished, if a file of a
    finished one is missing, or if nothing was published.
    """
    pattern = Layout("").run("*", "*", "*") / METRICS
    runs = sorted(path.parent for path in Path(results).glob(str(pattern)) if published not in path.parents)
    if not runs:
        raise BenchError(f"{results} holds no finished run: train and evaluate first (snakemake --cores all)")
    files = {f"runs/{run.relative_to(results)}/{name}": run / name for run in runs for name in _OF_A_RUN}
    shown = {f"published/{path.relative_to(published)}": path for path in published.rglob("*") if path.is_file()}
    if not shown:
        raise BenchError(f"{published} holds nothing: publish first (make publish)")
    files |= shown
    lost = [str(path) for path in files.values() if not path.is_file()]
    if lost:
        raise BenchError(f"{', '.join(lost)} missing: delete the folders of these runs, and run them again")
    sums = "".join(f"{digest(path)}  {name}\n" for name, path in sorted(files.items()))
    with replacing(out) as part, tarfile.open(part, "w") as whole:
        _add(whole, SUMS, sums.encode())
        for name, path in sorted(files.items()):
            _add(whole, name, path.read_bytes())
    write_text(out.with_name(f"{out.name}.sha256"), f"{digest(out)}  {out.name}\n")
    log.info("%s holds %d runs, %.0f MB", out, len(runs), out.stat().st_size / 1e6)


def _add(whole: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without time and owner."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    whole.addfile(entry, io.BytesIO(content))
