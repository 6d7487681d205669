"""Writes README.md, docs/results.md and the first page of the report from docs/templates/: `make numbers`.

A template holds no number of a result. It asks for it by name, here, and says with `so(...)` what must hold for the
sentence beside it. Where the published numbers no longer bear a sentence out, nothing is written.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
TEMPLATES = Path(__file__).parent / "templates"
PAGES = {
    "README.md": ROOT / "README.md",
    "results.md": ROOT / "docs" / "results.md",
    "report.rst": ROOT / "workflow" / "report" / "workflow.rst",
}
XRAYS = "covid-example"
PHOTOGRAPHS = "butterflies"
ISNETS = ("original_isnet", "dual_isnet", "selective_isnet", "stochastic_isnet")


class StaleError(Exception):
    """A sentence of a template does not hold for the published numbers."""


@cache
def table(name: str, snapshot: str = ".") -> pd.DataFrame:
    """Return a table of a published snapshot: one of `tables/`, or "scores"."""
    folder = PUBLISHED / snapshot
    return pd.read_csv(folder / f"{name}.csv" if name in ("scores", "runs") else folder / "tables" / f"{name}.csv")


def _row(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    if len(frame) != 1:
        raise StaleError(f"{len(frame)} rows instead of one where {dict(where)}")
    return frame.iloc[0]


def seeds(
    experiment: str, row: str, of: str = "deceiving", metric: str = "accuracy", snapshot: str = "."
) -> np.ndarray:
    """Return the score of each seed of a row on a test set, in per cent."""
    scores = table("scores", snapshot)
    found = scores[(scores["experiment"] == experiment) & (scores["row"] == row) & (scores["set"] == of)]
    if found.empty:
        raise StaleError(f"no runs of {row} in {experiment} on {of}")
    return 100 * found.sort_values("seed")[metric].to_numpy()


def mean(*place: str, **options: str) -> float:
    """Return the mean over seeds; arguments as in `seeds`."""
    return float(seeds(*place, **options).mean())


def worst(*place: str, **options: str) -> float:
    """Return the worst seed; arguments as in `seeds`."""
    return float(seeds(*place, **options).min())


def resisted(experiment: str, row: str, within: float = 2) -> int:
    """Return how many seeds lose no more than so many points from iid to deceiving images."""
    return int((seeds(experiment, row, "deceiving") >= seeds(experiment, row, "iid") - within - 1e-9).sum())


def fewest(row: str, mark: str, studies: Iterable[str], within: float = 2) -> str:
    """Return the first of some studies of few masks, from few to more, in which every seed of a row resists a mark.

    Each is named like "few_masks_10", and what comes back is the last part of that name, or "–".
    """
    runs = table("runs")
    for name in studies:
        place = f"{name}_{mark}", row
        wanted = ((runs["experiment"] == place[0]) & (runs["row"] == row)).sum()
        if wanted and resisted(*place, within=within) == wanted:
            return name.rsplit("_", 1)[1]
    return "–"


@cache
def _followed(experiment: str, row: str) -> pd.DataFrame:
    key = ["seed", "index"]
    where = f"experiment == '{experiment}' and row == '{row}'"
    predictions = (
        pd.read_parquet(PUBLISHED / "predictions.parquet")
        .query(where)
        .pivot(index=key, columns="set", values="prediction")
    )
    changed = predictions[predictions["ood"] != predictions["deceiving"]]["deceiving"].rename("class").reset_index()
    masks = pd.read_parquet(PUBLISHED / "classes.parquet").query(f"{where} and set == 'deceiving'")
    return changed.merge(masks[["seed", "class", "training_masks"]], on=["seed", "class"], validate="many_to_one")


def changed(experiment: str, rows: Iterable[str]) -> int:
    """Return how many predictions, of all seeds, change when the mark of another class is added."""
    return sum(len(_followed(experiment, row)) for row in rows)


def followed(experiment: str, rows: Iterable[str], masks: bool = False) -> int:
    """Return how many of these change to a class of which no training image has a mask; or to one of which some has."""
    return sum(int(((_followed(experiment, row)["training_masks"] > 0) == masks).sum()) for row in rows)


def compared(
    name: str, row: str, condition: str | None = None, of: str = "deceiving", snapshot: str = "."
) -> pd.Series:
    """Return the score and its test against the best ISNet: of an overview under a condition, or of a comparison."""
    where = {"method": row, "set": of} | ({"condition": condition} if condition else {})
    return _row(table(name, snapshot), where)


def interval(found: pd.Series) -> str:
    """Return a score with its interval: "97.9 (97.3 to 98.6)"."""
    return f"{100 * found['value']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def difference(found: pd.Series) -> str:
    """Return the difference from the best ISNet with interval and p: "+0.6 points, -0.8 to +2.1, p = 1"."""
    ends = [100 * found[key] for key in ("difference", "difference_low", "difference_high")]
    p = found["p_holm"]
    told = "p < 0.001" if p < 1e-3 else f"p = {p:.2g}"
    return "{:+.1f} points, {:+.1f} to {:+.1f}, {}".format(*ends, told)


def paired(first: np.ndarray, second: np.ndarray) -> str:
    """Return the mean of second - first with its t interval over seeds: "+4.9 points, -2.7 to +12.4"."""
    gain = second - first
    reach = stats.t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    return f"{gain.mean():+.1f} points, {gain.mean() - reach:+.1f} to {gain.mean() + reach:+.1f}"


def spread(*place: str, **options: str) -> str:
    """Return mean and sample standard deviation over seeds: "97.1 ± 0.3"."""
    found = seeds(*place, **options)
    return f"{found.mean():.1f} ± {found.std(ddof=1):.1f}"


def column(name: str, row: str, key: str, snapshot: str = ".", **where: Any) -> float:
    """Return an entry of a table."""
    return float(_row(table(name, snapshot), {"method": row, **where})[key])


def cost(row: str) -> str:
    """Return the time of a training step of a row as a multiple of the standard classifier's."""
    ratio = column("timing_remedies", row, "ratio_to_plain", "timing_studies", operation="training step")
    return f"{ratio:.1f}"


def step(row: str) -> str:
    """Return the same on ResNet-18 with ten classes."""
    ratio = column("timing_ten_classes", row, "ratio_to_plain", "timing_studies", operation="training step")
    return f"{ratio:.1f}"


def growth(row: str, classes: int) -> str:
    """Return the time of a training step as a multiple of that with two classes; a dash where it was not measured."""
    times = table("timing_main").query("operation == 'training step'").set_index(["method", "classes"])["growth"]
    return f"{times[row, classes]:.2f}" if (row, classes) in times.index else "–"


def lowest(experiment: str, rows: Iterable[str]) -> float:
    """Return the lowest mean of some rows over all test sets."""
    return min(mean(experiment, row, name) for row in rows for name in ("iid", "ood", "deceiving"))


def no_difference(name: str, rows: Iterable[str], of: str, snapshot: str = ".") -> bool:
    """Say that no row of a comparison differs significantly from the best ISNet."""
    return not any(compared(name, row, None, of, snapshot)["p_holm"] < 0.05 for row in rows)


def relevance(experiment: str, row: str) -> float:
    """Return the mean background relevance on iid images."""
    return float(seeds(experiment, row, "iid", "background_relevance").mean()) / 100


def _mediated(experiment: str, row: str) -> pd.DataFrame:
    """Return what was found of silenced units when the mark is added, a row for each layer in the network's order."""
    found = pd.read_parquet(PUBLISHED / "mediation.parquet").query("kind == 'silenced' and change == 'mark added'")
    found = found[(found["experiment"] == experiment) & (found["row"] == row)]
    if found.empty:
        raise StaleError(f"no mediation of {row} in {experiment}")
    return found


def restored(row: str, experiment: str = "bias_pattern_corner_patch") -> float:
    """Return how many predictions that change when the mark is added are restored by silenced units, in per cent."""
    return float(100 * _mediated(experiment, row)["restored"].max())


def shift(experiment: str, row: str, layer: int) -> float:
    """Return how far the mark moves the output of a layer, counted from 0 or from the last, -1, in per cent."""
    return float(100 * _mediated(experiment, row)["shift"].iloc[layer])


@cache
def _configuration(snapshot: str) -> dict[str, Any]:
    return yaml.safe_load((PUBLISHED / snapshot / "config.yaml").read_text(encoding="utf-8"))


def settings(*keys: str, snapshot: str = ".") -> Any:
    """Return an entry of a snapshot's configuration."""
    found = _configuration(snapshot)
    for key in keys:
        found = found[key]
    return found


def so(holds: Any) -> str:
    """Return nothing; raise if the sentence before it does not hold."""
    if not bool(holds):
        raise StaleError("the numbers no longer bear the sentence out")
    return ""


def published(path: str, snapshot: str = ".") -> str:
    """Return the text of a published file."""
    return (PUBLISHED / snapshot / path).read_text(encoding="utf-8").strip()


NAMES = {
    function.__name__: function
    for function in (
        changed, column, compared, cost, difference, fewest, followed, growth, interval, lowest, mean, no_difference,
        paired, published, relevance, resisted, restored, seeds, settings, shift, so, spread, step, worst,
    )
}  # fmt: skip


def pages() -> Iterator[tuple[Path, str]]:
    """Fill every template; yield the path of each page and its text. Raises StaleError, with template and line."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.globals |= NAMES | {"XRAYS": XRAYS, "PHOTOGRAPHS": PHOTOGRAPHS, "isnets": ISNETS}
    environment.filters["round1"] = lambda number: f"{number:.1f}"
    for name, path in PAGES.items():
        try:
            note = f"Written by `make numbers` from docs/templates/{name}: change that file."
            note = f".. {note}\n\n" if path.suffix == ".rst" else f"<!-- {note} -->\n"
            yield path, note + environment.get_template(name).render()
        except StaleError as error:
            frames = traceback.extract_tb(error.__traceback__)
            line = next(frame.lineno for frame in frames if frame.filename.endswith(f"templates/{name}"))
            raise StaleError(f"docs/templates/{name}, line {line}: {error}; write what is true now") from error


def main() -> None:
    """Write all pages, or none."""
    for path, text in list(pages()):
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
