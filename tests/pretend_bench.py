"""Stands in for ``python -m isnet_bench`` in the tests of the workflow: writes each job's files, empty."""

import os
import sys
from pathlib import Path

FILES = {
    "prepare": ["{out}/data.json"],
    "range": ["{out}"],
    "train": ["{out}/weights.safetensors", "{out}/history.csv", "{out}/run.json"],
    "evaluate": ["{run}/metrics.json", "{run}/predictions.parquet", "{run}/heatmaps.npz"],
    "tune": ["{out}.csv", "{out}.md", "{out}.yaml", "{out}.json"],
    "tables": [
        "{out}.csv",
        "{out}.md",
        "{out}.tex",
        "{out}.html",
        "{out}_classes.csv",
        "{out}_comparison.csv",
        "{out}_comparison.md",
        "{out}_comparison.tex",
        "{out}_comparison.html",
    ],
    "figures": ["{out}.pdf", "{out}.png"],
    "page": ["{out}"],
    "time": ["{out}", "{table}"],
    "study": ["{out}.csv", "{out}.md", "{out}.tex", "{out}.html", "{figure}.pdf", "{figure}.png"],
}

verb, *rest = sys.argv[1:]
options = {key.removeprefix("--"): value for key, value in zip(rest[::2], rest[1::2], strict=True)}
with Path("calls.txt").open("a") as calls:
    calls.write(" ".join(filter(None, [verb, options.get("method"), options.get("seed")])) + "\n")
if verb == os.environ.get("PRETEND_TO_FAIL"):
    sys.exit("error: the images of this experiment are missing; put them there")
for pattern in FILES[verb]:
    path = Path(pattern.format(**options))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
