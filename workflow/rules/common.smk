"""The checked configuration, and what the rules share."""

import json
import subprocess
import tempfile
from pathlib import Path

from isnet_bench import config as configuration
from isnet_bench import layout
from isnet_bench.io.errors import BenchError

try:
    # Snakemake reads these files, too, but lets a key be there twice.
    for file in map(Path, workflow.configfiles):
        configuration.parse(file)
    CONFIG = configuration.check(config, "the configuration", strict=False)
except BenchError as error:
    raise WorkflowError(str(error)) from None

LAYOUT = layout.Layout(CONFIG.results)
RUN = LAYOUT.run("{experiment}", "{row}", "{seed}")
STUDIED = [name for study in CONFIG.studies for name in CONFIG.study_experiments(study)]
TRAINED = [layout.RECORD, layout.HISTORY]
CHOICES = [name for name, study in CONFIG.studies.items() if study.select]
QUANTITIES = ["time", "memory"]
# About how many times as long as the others these train; and the priority of jobs that trainings wait for.
TIMES = {"original_isnet": 5, "dual_isnet": 2}
BEFORE_TRAINING = 1_000_000
GPUS = 0 if CONFIG.device == "cpu" else 1
# Used with --software-deployment-method conda only.
ENVIRONMENT = "../envs/isnet-bench.yaml"


wildcard_constraints:
    experiment="|".join([*CONFIG.experiments, *STUDIED]) or "-",
    row="[A-Za-z][A-Za-z0-9_]*",
    range_id="[A-Za-z][A-Za-z0-9_]*",
    seed="[0-9]+",
    study="|".join(CONFIG.studies) or "-",
    case="|".join(CONFIG.cases) or "-",
    overview="|".join(CONFIG.overviews) or "-",


def refuse_settings():
    """Stop before the first job where data sets, methods or backbones do not take what the configuration says."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(CONFIG.given(), file)
        file.flush()
        command = ["python", "-m", "isnet_bench", "check-config", "--config", file.name]
        check = subprocess.run(command, capture_output=True, text=True)
    wrong = [line.partition(" ")[2].strip() for line in check.stdout.splitlines() if line.startswith("FAILS")]
    if check.returncode:
        raise WorkflowError("\n".join(wrong) or check.stderr)


def part_of(verb, *wildcards_of):
    """The part of the configuration that a job depends on, as JSON text."""
    return lambda wildcards: CONFIG.part(verb, **{name: wildcards[name] for name in wildcards_of})


def table(name, *kinds):
    """A table's files, by their suffixes."""
    return [LAYOUT.table(name, kind) for kind in kinds]


def figure(name):
    """A figure's files."""
    return [LAYOUT.figure(name, "png"), LAYOUT.figure(name, "pdf")]


def data_files(wildcards):
    """The digest of the files below the data root that an experiment's data are made of."""
    return CONFIG.planned_files(wildcards.experiment, LAYOUT.data(wildcards.experiment) / layout.INFO)


def predicted_masks(wildcards):
    """The masks for an experiment whose data have a folder of predicted_masks: the segmentation's, or those there."""
    asked = CONFIG.experiment(wildcards.experiment).data.settings.get("predicted_masks")
    if asked is None:
        return []
    if CONFIG.segment and Path(asked) == LAYOUT.masks():
        return LAYOUT.masks() if CONFIG.segments else []
    return sorted(Path(asked).rglob("*.png"))


def segment_outputs():
    """The lung masks, where they are asked for and there are X-rays."""
    return [LAYOUT.segment() / layout.METRICS] if CONFIG.segments else []


def range_of(wildcards):
    """The relevance range, for the rows that need it."""
    range_id = CONFIG.range_id(wildcards.experiment, wildcards.row)
    return LAYOUT.range(wildcards.experiment, range_id, wildcards.seed) if range_id else []


def row_of_range(wildcards):
    """The first row that needs a relevance range."""
    rows = CONFIG.experiment(wildcards.experiment).rows
    return next(row for row in rows if CONFIG.range_id(wildcards.experiment, row) == wildcards.range_id)


def part_of_range(wildcards):
    """The configuration of the measurement of a relevance range."""
    return CONFIG.part("range", wildcards.experiment, row_of_range(wildcards))


def longest_first(wildcards):
    """The priority of a training: the longer it takes, the earlier it begins, so that all cores end together."""
    row = CONFIG.row(wildcards.experiment, wildcards.row)
    return row.training.epochs * TIMES.get(row.method, 1)


def runs_of(rows, seeds, files):
    """Files of runs, given pairs of an experiment and a row."""
    return [LAYOUT.run(*row, seed) / file for row in rows for seed in seeds for file in files]


def experiment_runs(experiment):
    """What every run of an experiment leaves behind."""
    rows = [(experiment, row) for row in CONFIG.experiment(experiment).rows]
    return runs_of(rows, CONFIG.experiment_seeds(experiment), [*TRAINED, layout.METRICS, layout.PREDICTIONS, layout.HEATMAPS])


def study_runs(study):
    """What every run of a study leaves behind; candidates are trained and not tested."""
    rows = [(cell.experiment, cell.row) for cell in CONFIG.cells(study)]
    tested = [layout.METRICS, layout.PREDICTIONS] if CONFIG.study(study).tested else []
    return runs_of(rows, CONFIG.study_seeds(study), [*TRAINED, *tested])


# A table that is newer than all that it is made of is not made again because some of that is missing, unless what is
# missing is asked for, too: so outputs name the runs and what was collected of them.


def experiment_outputs(experiment):
    """The tables and figures of an experiment, and its runs; an empty gallery has no figures of heatmaps."""
    gallery = CONFIG.experiments[experiment].gallery != ()
    kinds = ["accuracy", "heatmaps", "idea", "tradeoff"] if gallery else ["accuracy", "tradeoff"]
    return [
        *table(experiment, "csv", "md", "tex", "html"),
        *[path for kind in kinds for path in figure(f"{experiment}_{kind}")],
        LAYOUT.collected(experiment),
        *experiment_runs(experiment),
    ]


def study_outputs(study):
    """The table of a study, its figure or what was chosen, and its runs."""
    drawn = table(study, "yaml") if CONFIG.study(study).select else figure(study)
    return [*table(study, "csv", "md", "tex", "html"), *drawn, LAYOUT.collected(study), *study_runs(study)]


def overview_runs(name):
    """The collected runs of what an overview shows."""
    return [LAYOUT.collected(name) for name in CONFIG.overview(name).of.values()]


def overview_outputs(name):
    """The table and the figure of an overview, and the runs that it shows."""
    shown = CONFIG.overview(name).of.values()
    runs = [path for one in shown for path in (study_runs(one) if one in CONFIG.studies else experiment_runs(one))]
    return [*table(name, "csv", "md", "tex", "html"), *figure(name), *overview_runs(name), *runs]


def timing_outputs():
    """The tables and figures of the timing cases, where they are asked for."""
    figures = [figure(f"training_{quantity}_vs_classes_{case}") for case in CONFIG.cases for quantity in QUANTITIES]
    measured = [LAYOUT.timing(f"_{case}") for case in CONFIG.cases]
    return [*(table(f"timing_{case}", "csv", "html") for case in CONFIG.cases), *figures, *measured]
