"""Intervals and tests over seeds and images; formulae, sources and measured error rates are in docs/statistics.md.

Predictions are tidy frames with the columns method, seed, set, index, label and prediction: all methods saw the same
images (index) of a test set, with the same seeds. Functions of frames raise a ValueError where that is not so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from isnet_bench.evaluation.metrics import CONFUSION_METRICS

LEVEL = 0.95
"""Of all intervals; tests call a difference significant below 1 minus this."""
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


class Estimate(NamedTuple):
    """A value with its 95 % interval; the bounds are NaN where the data do not say."""

    value: float
    low: float
    high: float


class Crossed(NamedTuple):
    """The mean of scores of all images by all seeds, its standard error and that error's degrees of freedom."""

    mean: float
    error: float
    freedom: float

    @property
    def interval(self) -> Estimate:
        """The mean and its t interval."""
        half = stats.t.ppf(_TAILS[1], self.freedom) * self.error
        return Estimate(self.mean, self.mean - half, self.mean + half)

    @property
    def p_value(self) -> float:
        """Two-sided, of the hypothesis that the expectation is 0."""
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


def seed_interval(values: Sequence[float]) -> Estimate:
    """Return the mean of one value per seed, and its t interval: where other seeds' mean would lie, same images.

    A single seed has no bounds.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return Estimate(float(values.mean()), np.nan, np.nan)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Crossed(float(values.mean()), float(error), len(values) - 1).interval


def crossed(scores: np.ndarray) -> Crossed:
    """Estimate the mean score over all seeds and all images, of which some were drawn.

    Seeds and images are crossed random factors, as readers and cases are in the studies of diagnostic radiology that
    the method comes from (Obuchowski and Rockette, Communications in Statistics 24, 285, 1995; degrees of freedom by
    Hillis, Statistics in Medicine 26, 596, 2007). The mean square of seeds is not let fall below that of the rest,
    which it exceeds in expectation: two or three seeds may agree by chance, and would then leave no error at all.
    With a single seed the error is that over images alone.

    `scores` has the shape (seeds, images), with at least two images: 1 for rightly classified ones, or a paired
    difference of two methods.
    """
    seeds, images = scores.shape
    if images < 2:
        raise ValueError("an interval over images needs at least two of them")
    mean, by_seed, by_image = scores.mean(), scores.mean(1), scores.mean(0)
    image_square = seeds * by_image.var(ddof=1)
    if seeds == 1:
        return Crossed(float(mean), float(np.sqrt(image_square / images)), images - 1)
    rest = scores - by_seed[:, None] - by_image + mean
    rest_square = (rest**2).sum() / ((seeds - 1) * (images - 1))
    seed_square = max(images * by_seed.var(ddof=1), rest_square)
    total = seed_square + max(image_square - rest_square, 0)
    freedom = (seeds - 1) * (total / seed_square) ** 2 if seed_square > 0 else np.inf
    return Crossed(float(mean), float(np.sqrt(total / (seeds * images))), float(freedom))


def pseudovalues(cells: np.ndarray, number: int, metric: str) -> np.ndarray:
    """Return each image's share in a metric: the jackknife's pseudovalues, moved so that their mean is the metric.

    They make a mean over images of any metric, as Dorfman, Berbaum and Metz (Investigative Radiology 27, 723, 1992)
    did with the AUC. Those of the accuracy are 1 for rightly classified images, else 0.

    `cells`, shape (images,), has the cell of the confusion matrix that each image is in, label * number + prediction,
    where `number` is that of the classes.
    """
    measure, images = CONFUSION_METRICS[metric], len(cells)
    confusion = np.bincount(cells, minlength=number**2)
    occupied = np.flatnonzero(confusion)
    without = confusion - np.eye(number**2, dtype=int)[occupied]
    left_out = np.zeros(number**2)
    left_out[occupied] = measure(without.reshape(-1, number, number))
    shares = (images - 1) * (left_out @ confusion / images - left_out)
    # Rounded, so that what is equal but for rounding is equal.
    return np.round(measure(confusion.reshape(number, number)) + shares, 9)[cells]


def estimates(predictions: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Return a metric of each method on each test set with its interval over seeds and images (`crossed`).

    The metric is a key of `isnet_bench.evaluation.metrics.CONFUSION_METRICS`. Columns: set, method, seeds, images,
    value, low, high; fractions of 1, bounds cut to [0, 1].
    """
    rows = []
    for name, found in _scores(predictions, metric).items():
        for method, scores in found.items():
            value, low, high = crossed(scores).interval
            rows.append((name, method, *scores.shape, value, max(low, 0.0), min(high, 1.0)))
    return pd.DataFrame(rows, columns=["set", "method", "seeds", "images", "value", "low", "high"])


def pairwise(predictions: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Compare every two methods on every test set: the same images, all seeds, paired.

    One row per test set and pair: set, method, other, value, other_value (the metric, as in `estimates`), difference
    (value minus other_value), low and high (its interval, `crossed`, cut to [-1, 1]), p, and p_holm, corrected for all
    pairs of the test set: any may be picked after a look at the results, such as those with the best method.
    """
    tables = []
    for name, scores in _scores(predictions, metric).items():
        rows = []
        for method, other in combinations(scores, 2):
            found = crossed(scores[method] - scores[other])
            means = float(scores[method].mean()), float(scores[other].mean())
            value, low, high = found.interval
            rows.append((name, method, other, *means, value, max(low, -1.0), min(high, 1.0), found.p_value))
        columns = ["set", "method", "other", "value", "other_value", "difference", "low", "high", "p"]
        table = pd.DataFrame(rows, columns=columns)
        p = table["p"].to_numpy(float)
        tables.append(table.assign(p_holm=multipletests(p, method="holm")[1] if len(p) else p))
    return pd.concat(tables, ignore_index=True)


def against_best(pairs: pd.DataFrame, candidates: Collection[str]) -> pd.DataFrame:
    """Compare each method with that candidate, such as an ISNet, which is best on the test set.

    As `pairwise`, whose result `pairs` is; ``other`` is the best candidate. One row for each test set and any other
    method, in the order of the predictions.
    """
    both = _both_ways(pairs)
    chosen = both[both["method"].isin(candidates)]
    best = chosen.sort_values("value", ascending=False, kind="stable").drop_duplicates("set")
    found = both.merge(best[["set", "method"]].rename(columns={"method": "other"}), on=["set", "other"])
    places = {name: place for column in ("set", "method") for place, name in enumerate(both[column].unique())}
    return found.sort_values(["set", "method"], key=lambda column: column.map(places), ignore_index=True)


def best_marks(pairs: pd.DataFrame, outside: Collection[str] = ()) -> dict[str, str | None]:
    """Return for each test set the method that may be marked as the best, None where none may.

    It is the one with the highest value, if it differs significantly, after Holm's correction, from the runner-up.
    Those `outside`, such as oracles, do not compete: they are neither.
    """
    marks = {}
    competing = pairs[~pairs[["method", "other"]].isin(outside).any(axis=1)]
    for name, rows in _both_ways(competing).groupby("set", sort=False):
        ranked = rows.drop_duplicates("method").sort_values("value", ascending=False, kind="stable")
        first, second = ranked["method"].iloc[:2]
        (p,) = rows.loc[(rows["method"] == first) & (rows["other"] == second), "p_holm"]
        marks[name] = first if p < 1 - LEVEL else None
    return marks


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    swapped = pairs.rename(
        columns={"method": "other", "other": "method", "value": "other_value", "other_value": "value"}
    )
    swapped[["difference", "low", "high"]] = 0 - pairs[["difference", "high", "low"]].to_numpy()
    return pd.concat([pairs, swapped[pairs.columns]], ignore_index=True)


def _scores(predictions: pd.DataFrame, metric: str) -> dict[str, dict[str, np.ndarray]]:
    """For each test set and method, what each seed (rows) and image (columns) contributes to the metric."""
    found = {}
    for name, rows in predictions.groupby("set", sort=False):
        cells, number = _cells(rows)
        methods = rows["method"].unique()
        if len({tuple(cells.loc[method].index) for method in methods}) > 1:
            raise ValueError(f"the methods have different seeds on test set {name}")
        found[name] = {
            method: np.stack([pseudovalues(run, number, metric) for run in cells.loc[method].to_numpy()])
            for method in methods
        }
    return found


def _cells(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Cells of the confusion matrix, label * classes + prediction, with runs as rows and images as columns; classes."""
    if rows.groupby("index")["label"].nunique().max() > 1:
        raise ValueError("runs disagree about an image's label: they saw different images")
    number = int(rows[["label", "prediction"]].max(axis=None)) + 1
    cells = rows.assign(cell=rows["label"] * number + rows["prediction"]).set_index(["method", "seed", "index"])["cell"]
    if cells.index.has_duplicates:
        raise ValueError("an image occurs twice in a run")
    table = cells.unstack("index")
    if table.isna().any(axis=None):
        raise ValueError("some runs lack images that others have")
    return table, number
