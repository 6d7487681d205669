"""What a study found: its runs in one tidy frame, and its table.

Nothing but the ``metrics.json`` of each run, and one ``run.json``, is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from isnet_bench import config as configuration
from isnet_bench import variations
from isnet_bench.errors import BenchError
from isnet_bench.files import replacing
from isnet_bench.reporting import collect, markup, statistics, style
from isnet_bench.variations import Value, Variation

__all__ = ["Outcome", "caption", "folders", "outcome", "readable", "summary", "write"]


@dataclass(frozen=True)
class Outcome:
    """All evaluated runs of a study.

    ``frame`` has one row per combination of values, row, seed and test set, in the order of the configuration and of
    the figures. Its columns: the setting of each variation (the place of the value in the configuration), method
    (the row that takes part), label, seed, set, score (fraction of 1), low and high (its 95 % interval over test
    images; NaN: none), background_relevance (NaN: none) and train_seconds. ``score`` is one of
    `isnet_bench.reporting.collect.SCORES`.
    """

    study: str
    title: str
    data: str
    stand_in: bool
    score: str
    classes: int
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    looks: Mapping[str, style.Look]
    labels: Mapping[str, str]
    variations: tuple[Variation, ...]
    frame: pd.DataFrame

    @property
    def heading(self) -> str:
        """Title of table and figure; begins with a warning when other data stand in for the real ones."""
        return f"STAND-IN DATA: {self.title}" if self.stand_in else self.title

    @property
    def repeats(self) -> str:
        """The number of seeds in words."""
        return "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"

    @property
    def settings(self) -> list[str]:
        """The setting of each variation."""
        return [variation.setting for variation in self.variations]


def folders(config: dict[str, Any], study: str, results: Path) -> list[Path]:
    """Return the folder of every run of a study."""
    return [
        collect.folder(Path(results), cell.experiment, cell.row, seed)
        for cell in variations.cells(config, study)
        for seed in variations.seeds(config, study)
    ]


def outcome(config: dict[str, Any], study: str, results: Path) -> Outcome:
    """Read the metrics of all runs of a study of a checked configuration.

    Raises
    ------
    BenchError
        If there is no such study, if a run is missing or unreadable, or if runs were made on different data.
    """
    varied, seeds = variations.variations(config, study), variations.seeds(config, study)
    entries = configuration.study_entries(config, study)
    looks = style.row_looks(entries)
    cells = variations.cells(config, study)
    runs = {
        name: collect.runs({**config, "seeds": seeds}, name, results)
        for name in dict.fromkeys(cell.experiment for cell in cells)
    }
    first = next(iter(runs.values()))
    for name, other in runs.items():
        if (other.data, other.sets) != (first.data, first.sets):
            raise BenchError(
                f"the runs of {name} were made on {other.data} with the test sets {', '.join(other.sets)}, those of "
                f"{first.experiment} on {first.data} with {', '.join(first.sets)}: study {study} cannot compare them"
            )
    labels = {entry.row: entry.label for entry in entries}
    places = [{value.id: place for place, value in enumerate(variation.values)} for variation in varied]
    frames = []
    for cell in sorted(cells, key=lambda cell: list(looks).index(cell.source)):
        frame = runs[cell.experiment].frame
        chosen = [place[value.id] for place, value in zip(places, cell.values, strict=True)]
        known = {variation.setting: place for variation, place in zip(varied, chosen, strict=True)}
        known |= {"label": labels[cell.source], "method": cell.source}
        frames.append(frame[frame["method"] == cell.row].assign(**known))
    settings = [variation.setting for variation in varied]
    measured = ["score", "low", "high", "background_relevance", "train_seconds"]
    columns = [*settings, "method", "label", "seed", "set", *measured]
    frame = pd.concat(frames).rename(columns={first.score: "score"})[columns]
    return Outcome(
        study=study,
        title=config["studies"][study]["title"],
        data=first.data,
        stand_in=first.stand_in,
        score=first.score,
        classes=len(first.classes),
        seeds=tuple(seeds),
        sets=first.sets,
        looks=looks,
        labels={row: labels[row] for row in looks},
        variations=varied,
        frame=frame.sort_values(settings, kind="stable", ignore_index=True),
    )


def write(config: dict[str, Any], study: str, results: Path, out: Path) -> None:
    """Write ``out.csv`` (fractions of 1), ``out.md``, ``out.tex`` and ``out.html`` (percent).

    Raises what `outcome` raises.
    """
    found = outcome(config, study, Path(results))
    table = summary(found)
    shown = readable(table, found)
    text_columns = len(found.variations) + 1
    contents = {
        "csv": _named(table, found).to_csv(index=False, float_format="%.6g"),
        "md": f"{caption(found)}\n\n{markup.markdown(shown, text_columns=text_columns)}\n",
        "tex": markup.BOOKTABS + markup.latex(shown, caption(found), study, text_columns),
        "html": markup.page(
            found.heading,
            [markup.paragraph(caption(found)), markup.html_table(shown, text_columns=text_columns)],
        ),
    }
    out = Path(out)
    for kind, text in contents.items():
        with replacing(out.parent / f"{out.name}.{kind}") as part:
            part.write_text(text, encoding="utf-8")


def summary(found: Outcome) -> pd.DataFrame:
    """One row per combination of values, row and test set, in the order of `Outcome.frame`.

    Columns: the setting of each variation (the place of its value), method, label, set, metric, seeds; mean, std
    (sample standard deviation, ddof = 1), low and high (95 % t interval of the mean over seeds; of a single seed its
    interval over test images) of the score, a fraction of 1; the same of the training seconds (train_seconds_…), which
    a single seed has no interval of; background_relevance_mean and _std; data, stand_in. A single seed has no std;
    where a run has no background relevance, its mean has none.
    """
    keys = [*found.settings, "method", "label", "set"]
    rows = []
    for key, group in found.frame.groupby(keys, sort=False):
        relevance = group["background_relevance"]
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "metric": found.score,
                "seeds": len(group),
                **(_measured(group["score"], "") | _over_images(group)),
                **_measured(group["train_seconds"], "train_seconds_"),
                # skipna: a mean over some of the seeds must not pass for one over all of them.
                "background_relevance_mean": relevance.mean(skipna=False),
                "background_relevance_std": relevance.std(skipna=False),
            }
        )
    return pd.DataFrame(rows).assign(data=found.data, stand_in=found.stand_in)


def _measured(values: pd.Series, prefix: str) -> dict[str, float]:
    interval = statistics.seed_interval(values)
    measured = {"mean": interval.value, "std": values.std(), "low": interval.low, "high": interval.high}
    return {f"{prefix}{name}": value for name, value in measured.items()}


def _over_images(group: pd.DataFrame) -> dict[str, float]:
    return {name: group[name].item() for name in ("low", "high")} if len(group) == 1 else {}


def readable(table: pd.DataFrame, found: Outcome) -> pd.DataFrame:
    """The summary for people: one row per combination of values and row, percent, mean ± std over seeds."""
    keys = [*found.settings, "method", "label"]
    lines = []
    for key, group in table.groupby(keys, sort=False):
        *places, _, label = key
        by_set = group.set_index("set")
        pairs = zip(found.variations, places, strict=True)
        line = {variation.label: variation.values[place].name for variation, place in pairs} | {"Method": label}
        for name in found.sets:
            line[f"{name} (%)"] = _cell(by_set.loc[name, "mean"], by_set.loc[name, "std"], 100)
        first = by_set.loc[found.sets[0]]
        relevance = first["background_relevance_mean"], first["background_relevance_std"]
        line["Background relevance (%)"] = _cell(*relevance, 100)
        line["Training (s)"] = _cell(first["train_seconds_mean"], first["train_seconds_std"], 1)
        lines.append(line)
    return pd.DataFrame(lines)


def caption(found: Outcome) -> str:
    """The title line: what was measured, on which data, with how many seeds."""
    spread = "" if len(found.seeds) == 1 else " (mean ± sample standard deviation)"
    return (
        f"{found.heading}. Data: {found.data}. {collect.SCORES[found.score]} on {', '.join(found.sets)} test images, "
        f"{found.repeats}{spread}. Background relevance: share of the absolute relevance outside the foreground mask, "
        f"on {found.sets[0]} images."
    )


def _named(table: pd.DataFrame, found: Outcome) -> pd.DataFrame:
    """Return the table with the values themselves: numbers, or names."""

    def shown(value: Value, numeric: bool) -> Any:
        return value.given if numeric else value.name

    columns = {
        variation.setting: [shown(variation.values[place], variation.numeric) for place in table[variation.setting]]
        for variation in found.variations
    }
    return table.assign(**columns)


def _cell(mean: float, std: float, scale: float) -> str:
    if pd.isna(mean):
        return "none"
    return f"{scale * mean:.1f}" + ("" if pd.isna(std) else f" ± {scale * std:.1f}")
