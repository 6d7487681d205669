"""How much memory many photographs take: ``python benchmarks/photograph_memory.py --images 20000``.

Made-up photographs are prepared, trained on and evaluated, each by a process of its own, as the workflow does it. Told
are, in 10^6 bytes, the peak of a process's resident memory (VmHWM) and of that part of it which is no file (RssAnon,
looked at every few milliseconds). The latter counts: pages of files leave memory where others need it. Linux.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isnet_bench import cli, data
from isnet_bench.data.images import made_up
from isnet_bench.layout import Layout

STAGES = ("prepare", "train", "evaluate")
OTHERS = 64
_LABELS = ("moth", "wasp")
_INTERVAL = 0.005
_NAME = "many"


def write(folder, images, size, file_size, batch_size, planted):
    """Write photographs and the configuration that trains on them."""
    root = folder / "data"
    splits = {"train": images, "val": OTHERS, "test_iid": OTHERS, "test_ood": OTHERS}
    made_up.write(root / "manifest.csv", splits, _LABELS, file_size)
    experiment = {
        "data": {"name": "images", "manifest": "manifest.csv", "image_size": size, **planted},
        "backbone": {"name": "resnet_small"},
        "training": {"epochs": 1, "batch_size": batch_size, "val_batch_size": batch_size, "learning_rate": 1e-3},
        "methods": {"resnet": {}},
    }
    config = {"seeds": [0], "device": "cpu", "results": str(folder / "out"), "experiments": {_NAME: experiment}}
    (folder / "config.json").write_text(json.dumps(config))


def do(stage, folder, steps, in_memory):
    """Do a stage in this process; an epoch has so many batches, of all images, at most.

    Splits of up to `in_memory` bytes are read at once.
    """
    data.IN_MEMORY = in_memory
    arguments = [stage, "--config", str(folder / "config.json"), "--experiment", _NAME]
    if stage == "train":
        from isnet_bench.training import fit

        whole = fit.SeededBatches.__len__
        fit.SeededBatches.__len__ = lambda batches: min(whole(batches), steps)
    return cli.main(arguments if stage == "prepare" else [*arguments, "--row", "resnet", "--seed", "0"])


def measure(stage, folder, steps, in_memory=data.IN_MEMORY):
    """Return seconds and peaks of the memory of a process that does a stage."""
    begun, anonymous, status = time.perf_counter(), 0, {}
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder), "--steps", str(steps)]
    command += ["--in-memory", str(in_memory)]
    process = subprocess.Popen(command, env={**os.environ, "ISNET_BENCH_DATA": str(folder / "data")})
    while process.poll() is None:
        status = _status(process.pid) or status
        anonymous = max(anonymous, status.get("RssAnon", 0))
        time.sleep(_INTERVAL)
    if process.returncode:
        raise SystemExit(f"{stage} failed")
    return {"seconds": time.perf_counter() - begun, "anonymous_mb": anonymous, "resident_mb": status["VmHWM"]}


def _status(pid):
    """Return what the kernel tells of a process in kilobytes, in 10^6 bytes; nothing once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    found = (line.split() for line in lines if line.endswith(" kB"))
    return {key.rstrip(":"): int(value) * 1024 / 1e6 for key, value, _ in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="training images")
    parser.add_argument("--size", type=int, default=224, help="their side in pixels, as networks see them")
    parser.add_argument("--file-size", type=int, default=256, help="their side in their files")
    parser.add_argument("--steps", type=int, default=100, help="batches of the one epoch")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--planted", type=json.loads, default={}, help="""such as '{"places": {}}'""")
    parser.add_argument("--in-memory", type=int, default=data.IN_MEMORY, help="bytes of a split that is read at once")
    parser.add_argument("--folder", type=Path, help="where files are written (default: a temporary folder)")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        return do(args.stage, args.folder, args.steps, args.in_memory)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write(folder, args.images, args.size, args.file_size, args.batch_size, args.planted)
        for stage in STAGES:
            found = measure(stage, folder, args.steps, args.in_memory)
            print(json.dumps({"stage": stage, "images": args.images, **found}), flush=True)
        prepared = Layout(folder / "out").data(_NAME)
        print(json.dumps({"prepared_mb": sum(path.stat().st_size for path in prepared.iterdir()) / 1e6}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
