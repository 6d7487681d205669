"""What a measured relevance range belongs to, and how a training reads it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from isnet_bench import config as configuration
from isnet_bench.config import CLASSIFIER
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import read_json
from isnet_bench.training.runs import Job

_REMEDY = "make it with the verb range"


def read(job: Job, path: Path) -> dict[str, Any]:
    """Read what the verb `range` wrote. BenchError: it is missing, damaged, or was measured for another run."""
    found = read_json(path, _REMEDY)
    for key, value in about(job).items():
        # Files of before have no digest of the classifier.
        if found.get(key, value) != value:
            raise BenchError(f"{path} was measured for another {key} than this run has: delete it, then {_REMEDY}")
    return found


def about(job: Job) -> dict[str, Any]:
    """Return what a range is measured for, as JSON has it; "network" is a digest of what that was trained with."""
    hyperparameters = job.hyperparameters
    classifier = json.dumps(plain(job).identity, sort_keys=True)
    told = {
        "experiment": job.experiment,
        "method": job.method.name,
        "explained": {name: getattr(hyperparameters, name) for name in job.method.range.fields},
        "seed": job.seed,
        "network": hashlib.sha256(classifier.encode()).hexdigest(),
    }
    return json.loads(json.dumps(told))


def plain(job: Job) -> Job:
    """Return the run of the ordinary classifier whose heatmaps' range is measured."""
    part = configuration.load(job.config.part("range_classifier", job.experiment))
    return replace(job, config=part, row=CLASSIFIER)
