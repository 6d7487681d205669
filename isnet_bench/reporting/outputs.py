"""All tables and figures of finished runs at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from isnet_bench.config import Config
from isnet_bench.layout import Layout
from isnet_bench.reporting import figures, mediation, overview, runs, snapshot, studies, tables, timing_reports

log = logging.getLogger(__name__)

FIGURES: dict[str, Callable[[runs.Runs, Path], None]] = {
    "accuracy": figures.accuracy,
    "heatmaps": figures.heatmaps,
    "idea": figures.idea,
    "tradeoff": figures.tradeoff,
}
"""The figures of an experiment."""


def write_tables(cfg: Config, experiment: str, results: Path, out: Path) -> None:
    """Write the tables of an experiment, paths being without suffix. Raises what they raise."""
    tables.write(runs.read(cfg, experiment, results), out)


def write_figure(kind: str, cfg: Config, experiment: str, results: Path, out: Path) -> None:
    """Draw one of `FIGURES`. Raises what the figure raises."""
    FIGURES[kind](runs.read(cfg, experiment, results), out)


def write_study(cfg: Config, study: str, results: Path) -> None:
    """Write table and figure of a study, and that of its mediation if there is one; of a choice, what it chose."""
    found, layout = runs.read(cfg, study, results), Layout(results)
    if cfg.study(study).select:
        studies.write_choice(found, layout.table(study))
    else:
        studies.write(found, layout.table(study))
        studies.draw(found, layout.figure(study), cfg.study(study).seconds)
        if len(mediation.restored(found)):
            mediation.draw(found, layout.figure(f"{study}_mediation"))


def write_overview(cfg: Config, name: str, results: Path) -> None:
    """Write the table of an overview, and draw its figure."""
    found, layout = overview.read(cfg, name, results), Layout(results)
    overview.write(found, layout.table(name))
    overview.draw(found, layout.figure(name))


def write_timing(cfg: Config, case: str, results: Path) -> None:
    """Write the tables of a timing case, and draw its figures. Raises what they raise."""
    layout, end = Layout(results), cfg.case(case).suffix
    timing_reports.write(layout.timing(end), layout.table(f"timing{end}"))
    for kind in timing_reports.QUANTITIES:
        timing_reports.draw(kind, cfg, case, layout.timing(end), layout.figure(f"training_{kind}_vs_classes{end}"))


def collected_studies(cfg: Config, results: Path) -> list[str]:
    """Return the studies whose runs were collected: studies are made on demand."""
    there = {name: snapshot.experiments(runs.source(results, name)) for name in cfg.studies}
    return [name for name in cfg.studies if there[name] >= set(cfg.study_experiments(name))]


def drawn_overviews(cfg: Config, results: Path) -> list[str]:
    """Return the overviews all of whose studies were collected."""
    there = {*cfg.experiments, *collected_studies(cfg, results)}
    return [name for name, asked in cfg.overviews.items() if there.issuperset(asked.of.values())]


def measured_cases(cfg: Config, results: Path) -> list[str]:
    """Return the timing cases that were measured; all of them where none was, so that what needs one says so."""
    measured = [name for name, case in cfg.cases.items() if Layout(results).timing(case.suffix).is_file()]
    left_out = [name for name in cfg.cases if name not in measured]
    if measured and left_out:
        log.warning("timing cases that were not measured are left out: %s", ", ".join(left_out))
    return measured or left_out


def redraw(cfg: Config, results: Path) -> None:
    """Write every table and figure of the runs below some results, or of a published snapshot, into that folder.

    Nothing is trained, evaluated or timed, and no data are needed. Studies that were not collected are left out, and
    of several timing cases those that were not measured. All processors work.

    Raises BenchError if an experiment was not collected, or if times were to be measured and none were.
    """
    with ProcessPoolExecutor() as pool:
        for job in [pool.submit(*task) for task in _tasks(cfg, Path(results))]:
            job.result()
    log.info("all tables and figures are in %s", results)


def _tasks(cfg: Config, results: Path) -> Iterator[tuple]:
    layout = Layout(results)
    for name, experiment in cfg.experiments.items():
        for kind in FIGURES:
            if kind not in ("heatmaps", "idea") or experiment.gallery != ():
                yield write_figure, kind, cfg, name, results, layout.figure(f"{name}_{kind}")
        yield write_tables, cfg, name, results, layout.table(name)
    for case in measured_cases(cfg, results):
        yield write_timing, cfg, case, results
    for study in collected_studies(cfg, results):
        yield write_study, cfg, study, results
    for name in drawn_overviews(cfg, results):
        yield write_overview, cfg, name, results
