"""The checked configuration, and what the rules share."""

import json
import os
import sys
from pathlib import Path

from snakemake.utils import update_config

from isnet_bench import config as configuration
from isnet_bench.errors import BenchError

# `.venv/bin/snakemake` works without an activated environment, too: the jobs find the Python that Snakemake runs in.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

update_config(config, configuration.typed(workflow.config_settings.config))
try:
    config = configuration.check(config, " + ".join(map(os.path.relpath, workflow.configfiles)) or "--config")
except BenchError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"]
# Tuning is a target of its own; its candidates are rows of an experiment beside the others.
TUNING = configuration.candidates.experiment(config)
# So are the studies, whose runs are those of experiments, too.
VARIATIONS = configuration.variations.names(config)
EXPERIMENTS = [name for name in config["experiments"] if name not in {TUNING, *configuration.variations.owners(config)}]
# End of the file names of a timing study -> its name.
STUDIES = {configuration.studies.suffix(study): study for study in configuration.studies.names(config)}
RUN = f"{RESULTS}/{{experiment}}/{{method}}/seed{{seed}}"
RUN_LOGS = f"{RESULTS}/logs/{{experiment}}/{{method}}/seed{{seed}}"
RUN_BENCHMARKS = f"{RESULTS}/benchmarks/{{experiment}}/{{method}}/seed{{seed}}"
MASKS = f"{RESULTS}/segment/masks"
GPUS = 0 if config["device"] == "cpu" else 1
# Used with --software-deployment-method conda only.
ENVIRONMENT = "../envs/isnet-bench.yaml"


wildcard_constraints:
    experiment="|".join(config["experiments"]),
    method="[A-Za-z][A-Za-z0-9_]*",
    range_id="[A-Za-z][A-Za-z0-9_]*",
    seed="[0-9]+",
    study=f"(?:{'|'.join(STUDIES)})",
    variation="|".join(VARIATIONS),


def job_config(verb, experiment=None, method=None, study=None):
    """The part of the configuration that a job depends on, as JSON text."""
    return json.dumps(configuration.prune(config, experiment, method, verb, study), separators=(",", ":"))


def of_experiment(verb):
    """The configuration of a job about a whole experiment."""
    return lambda wildcards: job_config(verb, wildcards.experiment)


def of_method(verb):
    """The configuration of a job about one method of an experiment."""
    return lambda wildcards: job_config(verb, wildcards.experiment, wildcards.method)


def predicted_masks(wildcards):
    """The segmentation's masks, for an experiment whose data have their folder as predicted_masks."""
    asked = config["experiments"][wildcards.experiment]["data"].get("predicted_masks")
    return MASKS if "segment" in config and asked and Path(asked) == Path(MASKS) else []


def of_study(wildcards):
    """The configuration of a job about a timing study."""
    return job_config("time", study=STUDIES[wildcards.study])


def of_variation(wildcards):
    """The configuration of the table and the figure of a study."""
    return job_config("study", study=wildcards.variation)


def metrics_of_variation(wildcards):
    """The metrics of every training of a study."""
    return [
        f"{RESULTS}/{cell.experiment}/{cell.row}/seed{seed}/metrics.json"
        for cell in configuration.variations.cells(config, wildcards.variation)
        for seed in configuration.variations.seeds(config, wildcards.variation)
    ]


def range_of(wildcards):
    """The relevance range, for the methods that need it."""
    range_id = configuration.range_id(config, wildcards.experiment, wildcards.method)
    return f"{RESULTS}/{wildcards.experiment}/range/{range_id}/seed{wildcards.seed}.json" if range_id else []


def of_range(wildcards):
    """The configuration of the measurement of a relevance range."""
    rows = config["experiments"][wildcards.experiment]["methods"]
    ranges = {configuration.range_id(config, wildcards.experiment, row): row for row in rows}
    return job_config("range", wildcards.experiment, ranges[wildcards.range_id])


def runs_of(file):
    """A file of every training of an experiment."""
    return lambda wildcards: expand(
        f"{RESULTS}/{wildcards.experiment}/{{method}}/seed{{seed}}/{file}",
        method=config["experiments"][wildcards.experiment]["methods"],
        seed=config["seeds"],
    )


def experiment_outputs(experiment):
    """The tables and figures of an experiment; an empty gallery has no figure of heatmaps."""
    no_gallery = config["experiments"][experiment].get("gallery") == []
    kinds = ["accuracy", "tradeoff"] if no_gallery else ["accuracy", "heatmaps", "tradeoff"]
    return expand(f"{RESULTS}/tables/{experiment}.{{suffix}}", suffix=["csv", "md", "tex", "html"]) + expand(
        f"{RESULTS}/figures/{experiment}_{{kind}}.{{suffix}}", kind=kinds, suffix=["pdf", "png"]
    )


def variation_outputs(study):
    """The table and the figure of a study."""
    return expand(f"{RESULTS}/tables/{study}.{{suffix}}", suffix=["csv", "md", "tex", "html"]) + expand(
        f"{RESULTS}/figures/{study}.{{suffix}}", suffix=["pdf", "png"]
    )


def segment_outputs():
    """The lung masks, where they are asked for."""
    return [f"{RESULTS}/segment/metrics.json"] if "segment" in config else []


def timing_outputs():
    """The tables and figures of the timing studies, where they are asked for."""
    return expand(f"{RESULTS}/tables/timing{{study}}.{{suffix}}", study=STUDIES, suffix=["csv", "html"]) + expand(
        f"{RESULTS}/figures/training_{{quantity}}_vs_classes{{study}}.{{suffix}}",
        quantity=["time", "memory"],
        study=STUDIES,
        suffix=["pdf", "png"],
    )
