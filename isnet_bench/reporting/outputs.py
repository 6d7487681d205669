"""All tables and figures of finished runs at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isnet_bench import candidates, studies, timing, tuning
from isnet_bench.reporting import comparison, figures, tables, timing_figures, timing_page, tradeoff

__all__ = ["FIGURES", "QUANTITIES", "draw", "draw_timing", "experiments", "redraw", "timing_json"]

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


def experiments(config: Mapping[str, Any]) -> list[str]:
    """Return the experiments that have tables and figures; the candidates of tuning have a table of their own."""
    return [name for name in config["experiments"] if name != candidates.experiment(config)]


def timing_json(results: Path, study: str) -> Path:
    """Return the measurements of a timing study."""
    return results / "timing" / f"training_step{studies.suffix(study)}.json"


def redraw(config: dict[str, Any], results: Path) -> None:
    """Write every table and figure of a configuration's finished runs, in ``tables`` and ``figures`` of `results`.

    Nothing is trained, evaluated or timed, and no data are needed: metrics, predictions, heatmaps, records and
    measured times are read below `results`. Tuning's tables are written if its candidates are there.

    Parameters
    ----------
    config : dict
        A checked configuration.
    results : Path
        Root of the results, or a published snapshot of them.

    Raises
    ------
    BenchError
        If a run or a timing study of the configuration is missing or unreadable.
    """
    results = Path(results)
    for experiment in experiments(config):
        _experiment(config, experiment, results)
    for study in studies.names(config):
        _timing(config, study, results)
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
