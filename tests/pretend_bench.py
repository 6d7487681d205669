"""Stands in for ``python -m isnet_bench`` in the tests of the workflow: writes each job's files, empty.

The words are read by the real command line, which refuses an option that it does not know.
"""

import json
import os
import sys
from pathlib import Path

import isnet_bench

# This file stands in for the package's own; all else of the package is the real one.
isnet_bench.__path__.append(os.environ["REAL_BENCH"])

from isnet_bench import cli  # noqa: E402
from isnet_bench.config import load  # noqa: E402
from isnet_bench.layout import (  # noqa: E402
    HEATMAPS,
    HISTORY,
    MEDIATION,
    METRICS,
    PREDICTIONS,
    RECORD,
    WEIGHTS,
    Layout,
)

RUN = [WEIGHTS, HISTORY, RECORD]
TABLE = ["csv", "md", "tex", "html"]


def written(args, config):
    """Return what a job leaves behind."""
    place = Layout(getattr(args, "results", None) or config.results)
    if args.verb == "range":
        return [args.out]
    if args.verb == "time":
        return [place.timing(f"_{args.case}")]
    if args.verb == "collect":
        return [place.collected(args.experiment or args.study) / "runs.csv"]
    names = {
        "prepare": ["data.json"],
        "train": RUN,
        "segment": [*RUN, METRICS, "masks.csv", "report.md"],
        "evaluate": [METRICS, PREDICTIONS, HEATMAPS],
        "mediate": [MEDIATION],
    }
    if args.verb in names:
        folder = args.run if args.verb in ("evaluate", "mediate") else args.out
        return [folder / name for name in names[args.verb]]
    if args.verb == "figures":
        return figure(place, f"{args.experiment}_{args.kind}")
    if args.verb == "timing":
        figures = [figure(place, f"training_{quantity}_vs_classes_{args.case}") for quantity in ("time", "memory")]
        return [*table(place, f"timing_{args.case}"), *figures[0], *figures[1]]
    if args.verb == "overview":
        return [*table(place, args.overview), *figure(place, args.overview)]
    if args.verb == "study":
        chosen = [place.table(args.study, "yaml")] if config.study(args.study).select else figure(place, args.study)
        return [*table(place, args.study), *chosen]
    name = args.experiment
    return [*table(place, name), *table(place, f"{name}_comparison"), place.table(f"{name}_classes", "csv")]


def table(place, name):
    return [place.table(name, kind) for kind in TABLE]


def figure(place, name):
    return [place.figure(name, kind) for kind in ("pdf", "png")]


args = cli.parser().parse_args()
if args.verb in ("catalog", os.environ.get("CHECK_REALLY")):
    sys.exit(cli.main())
if args.verb == "check-config":
    sys.exit()
with Path("calls.txt").open("a") as calls:
    about = [getattr(args, name, None) for name in ("row", "seed")]
    calls.write(" ".join([args.verb, *(str(word) for word in about if word is not None)]) + "\n")
if args.verb == os.environ.get("PRETEND_TO_FAIL"):
    sys.exit("error: the images of this experiment are missing; put them there")
for path in written(args, load(args.config)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
if args.verb == "prepare":
    if download := os.environ.get("PRETEND_TO_DOWNLOAD"):
        Path(download).parent.mkdir(parents=True, exist_ok=True)
        Path(download).touch()
    made_of = {"planned": args.files, "files": load(args.config).files(args.experiment)}
    (args.out / "data.json").write_text(json.dumps({"made_of": made_of}))
if args.verb == "segment":
    (args.out / "masks").mkdir(exist_ok=True)
