"""All tables and figures of finished runs at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isnet_bench import candidates, studies, timing, tuning
from isnet_bench import variations as settings
from isnet_bench.reporting import (
    comparison,
    figures,
    tables,
    timing_figures,
    timing_page,
    tradeoff,
    variation_figures,
    variations,
)

__all__ = [
    "FIGURES",
    "QUANTITIES",
    "draw",
    "draw_timing",
    "experiments",
    "finished_studies",
    "measured_studies",
    "redraw",
    "timing_json",
    "write_study",
]

log = logging.getLogger(__name__)

FIGURES = ("accuracy", "heatmaps", "tradeoff")
"""The figures of an experiment, as `draw` knows them."""

QUANTITIES = ("time", "memory")
"""The figures of a timing study, by what they show against the number of classes."""


def draw(kind: str, config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Draw one of `FIGURES`. Raises what the figure raises."""
    figure = {"accuracy": figures.accuracy, "heatmaps": figures.heatmaps, "tradeoff": tradeoff.draw}[kind]
    figure(config, experiment, results, out)


def draw_timing(quantity: str, config: dict[str, Any], results: Path, out: Path, study: str) -> None:
    """Draw one of `QUANTITIES` of a timing study. Raises what the figure raises."""
    figure = {"time": timing_figures.time, "memory": timing_figures.memory}[quantity]
    figure(config, timing_json(results, study), out, study)


def write_study(config: dict[str, Any], study: str, results: Path, table: Path, figure: Path) -> None:
    """Write table and figure of a study, paths being without suffix. Raises what they raise."""
    variations.write(config, study, results, table)
    variation_figures.draw(config, study, results, figure)


def experiments(config: Mapping[str, Any]) -> list[str]:
    """Return the experiments that have tables and figures; those of tuning and of studies have others, of their own."""
    others = {candidates.experiment(config), *settings.owners(config)}
    return [name for name in config["experiments"] if name not in others]


def finished_studies(config: Mapping[str, Any], results: Path) -> list[str]:
    """Return the studies whose runs are all there: studies are made on demand."""
    finished = []
    for study in settings.names(config):
        there = [(folder / "metrics.json").is_file() for folder in variations.folders(config, study, results)]
        if all(there):
            finished.append(study)
        elif any(there):
            log.warning("study %s is left out: %d of its %d runs are there", study, sum(there), len(there))
    return finished


def measured_studies(config: Mapping[str, Any], results: Path) -> list[str]:
    """Return the timing studies that were measured; all of them where none was, so that what needs one says so."""
    wanted = studies.names(config)
    measured = [study for study in wanted if timing_json(results, study).is_file()]
    for study in wanted:
        if measured and study not in measured:
            log.warning("timing study %s is left out: %s is not there", study, timing_json(results, study))
    return measured or wanted


def timing_json(results: Path, study: str) -> Path:
    """Return the measurements of a timing study."""
    return results / "timing" / f"training_step{studies.suffix(study)}.json"


def redraw(config: dict[str, Any], results: Path) -> None:
    """Write every table and figure of a configuration's finished runs, in ``tables`` and ``figures`` of `results`.

    Nothing is trained, evaluated or timed, and no data are needed: metrics, predictions, heatmaps, records and
    measured times are read below `results`. Tuning's tables are written if its candidates are there, those of a
    study if all of its runs are, and of several timing studies those of the measured ones.

    Parameters
    ----------
    config : dict
        A checked configuration.
    results : Path
        Root of the results, or a published snapshot of them.

    Raises
    ------
    BenchError
        If a run of the configuration is missing or unreadable, or if times were to be measured and none were.
    """
    results = Path(results)
    for experiment in experiments(config):
        _experiment(config, experiment, results)
    for study in measured_studies(config, results):
        _timing(config, study, results)
    for study in finished_studies(config, results):
        write_study(config, study, results, results / "tables" / study, results / "figures" / study)
    tuned = candidates.experiment(config)
    if tuned is not None and (results / tuned).is_dir():
        tuning.tables(config, results, results / "tables" / "tuning")
    log.info("all tables and figures are in %s and %s", results / "tables", results / "figures")


def _experiment(config: dict[str, Any], experiment: str, results: Path) -> None:
    tables.write(config, experiment, results, results / "tables" / experiment)
    comparison.write(config, experiment, results, results / "tables" / f"{experiment}_comparison")
    for kind in FIGURES:
        if kind != "heatmaps" or figures.has_gallery(config, experiment):
            draw(kind, config, experiment, results, results / "figures" / f"{experiment}_{kind}")


def _timing(config: dict[str, Any], study: str, results: Path) -> None:
    end = studies.suffix(study)
    timing.table(timing_json(results, study), results / "tables" / f"timing{end}.csv")
    timing_page.write(timing_json(results, study), results / "tables" / f"timing{end}.html")
    for quantity in QUANTITIES:
        draw_timing(quantity, config, results, results / "figures" / f"training_{quantity}_vs_classes{end}", study)
