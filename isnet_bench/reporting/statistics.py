"""Intervals and tests over seeds and images; formulae, sources and measured error rates are in docs/statistics.md.

Predictions are tidy frames with the columns method, seed, set, index, label and prediction: all methods saw the same
images (index) of a test set, with the same seeds. Functions of frames raise a ValueError where that is not so.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from isnet_bench.evaluation.metrics import CONFUSION_METRICS

__all__ = [
    "CriticalDifference",
    "Crossed",
    "Estimate",
    "accuracies",
    "against_best",
    "best_marks",
    "critical_difference",
    "crossed",
    "hierarchical_bootstrap",
    "holm",
    "pairwise",
    "seed_interval",
]

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

    Parameters
    ----------
    scores : ndarray
        Shape (seeds, images), such as 1 for rightly classified images, or a paired difference of two methods.

    Raises
    ------
    ValueError
        If there are fewer than two images.
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


def hierarchical_bootstrap(
    predictions: pd.DataFrame, metric: str = "accuracy", *, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return a metric's mean over seeds with the percentile interval of a bootstrap over seeds and, within, images.

    Each resample draws seeds with replacement, and one set of images that all its seeds share, for the seeds were
    tested on the same images (the pigeonhole bootstrap; Owen, Annals of Applied Statistics 1, 386, 2007). Few seeds
    make it too narrow where seeds differ by more than images explain; for the accuracy, `crossed` does better.

    Parameters
    ----------
    predictions : DataFrame
        Of one method and one test set.
    metric : str
        A key of `isnet_bench.evaluation.metrics.CONFUSION_METRICS`, in which seeds are averaged.
    resamples, seed : int
        Number of resamples, and the seed of their draws.
    """
    labels, predicted = _one_set(predictions)
    names, codes = np.unique(np.concatenate([labels[None], predicted]), return_inverse=True)
    codes, number = codes.reshape(-1, len(labels)), len(names)
    cells = codes[0] * number + codes[1:]
    generator = np.random.default_rng(seed)

    def evaluate(cells: np.ndarray) -> float:
        confusions = [np.bincount(row, minlength=number**2).reshape(number, number) for row in cells]
        return float(CONFUSION_METRICS[metric](np.stack(confusions)).mean())

    def resample() -> float:
        seeds, images = (generator.integers(size, size=size) for size in cells.shape)
        return evaluate(cells[np.ix_(seeds, images)])

    low, high = np.quantile([resample() for _ in range(resamples)], _TAILS)
    return Estimate(evaluate(cells), float(low), float(high))


def accuracies(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return each method's accuracy on each test set with its interval over seeds and images (`crossed`).

    Columns: set, method, seeds, images, accuracy, low, high; fractions of 1, bounds cut to [0, 1].
    """
    rows = []
    for name, correct in _correct(predictions).items():
        for method, scores in correct.items():
            value, low, high = crossed(scores).interval
            seeds, images = scores.shape
            rows.append((name, method, seeds, images, value, max(low, 0.0), min(high, 1.0)))
    return pd.DataFrame(rows, columns=["set", "method", "seeds", "images", "accuracy", "low", "high"])


def pairwise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compare every two methods on every test set: the same images, all seeds, paired.

    Returns
    -------
    DataFrame
        One row per test set and pair: set, method, other, accuracy, other_accuracy, difference (accuracy minus
        other_accuracy), low and high (its interval, `crossed`, cut to [-1, 1]), p, and p_holm, corrected for all
        pairs of the test set: any may be picked after a look at the results, such as those with the best method.
    """
    tables = []
    for name, correct in _correct(predictions).items():
        rows = []
        for method, other in combinations(correct, 2):
            found = crossed(correct[method] - correct[other])
            means = float(correct[method].mean()), float(correct[other].mean())
            value, low, high = found.interval
            rows.append((name, method, other, *means, value, max(low, -1.0), min(high, 1.0), found.p_value))
        columns = ["set", "method", "other", "accuracy", "other_accuracy", "difference", "low", "high", "p"]
        table = pd.DataFrame(rows, columns=columns)
        tables.append(table.assign(p_holm=holm(table["p"].to_numpy(float))))
    return pd.concat(tables, ignore_index=True)


def against_best(pairs: pd.DataFrame, candidates: Collection[str]) -> pd.DataFrame:
    """Compare each method with that candidate which has the highest accuracy on the test set.

    Parameters
    ----------
    pairs : DataFrame
        What `pairwise` returned.
    candidates : collection of str
        The methods that may be the best, such as the ISNets; at least one of them is in ``pairs``.

    Returns
    -------
    DataFrame
        As `pairwise`, where ``other`` is the best candidate; one row for each test set and any other method.
    """
    both = _both_ways(pairs)
    chosen = both[both["method"].isin(candidates)]
    best = chosen.sort_values("accuracy", ascending=False, kind="stable").drop_duplicates("set")
    return both.merge(best[["set", "method"]].rename(columns={"method": "other"}), on=["set", "other"])


def best_marks(pairs: pd.DataFrame) -> dict[str, str | None]:
    """Return for each test set the method that may be marked as the best, None where none may.

    Parameters
    ----------
    pairs : DataFrame
        What `pairwise` returned: the method with the highest accuracy is marked if it differs significantly, after
        Holm's correction, from the runner-up.
    """
    marks = {}
    for name, rows in _both_ways(pairs).groupby("set", sort=False):
        ranked = rows.drop_duplicates("method").sort_values("accuracy", ascending=False, kind="stable")
        first, second = ranked["method"].iloc[:2]
        (p,) = rows.loc[(rows["method"] == first) & (rows["other"] == second), "p_holm"]
        marks[name] = first if p < 1 - LEVEL else None
    return marks


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return p values, shape (n,), corrected by Holm's step-down method (Scandinavian J. of Statistics 6, 65, 1979)."""
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(stepped, 1)
    return corrected


@dataclass(frozen=True)
class CriticalDifference:
    """What a critical-difference diagram shows.

    Attributes
    ----------
    ranks : Series
        Mean rank of each method, 1 is best, in ascending order.
    statistic, p : float
        Of Friedman's test, corrected for ties: do the methods differ at all?
    difference : float
        Mean ranks that differ by at least this differ significantly (Nemenyi).
    groups : tuple
        The largest sets of two or more methods, no two of which differ significantly; a bar of the diagram each.
    """

    ranks: pd.Series
    statistic: float
    p: float
    difference: float
    groups: tuple[tuple[str, ...], ...]


def critical_difference(scores: pd.DataFrame) -> CriticalDifference:
    """Compare methods across experiments by their ranks (Demšar, JMLR 7, 1, 2006).

    Parameters
    ----------
    scores : DataFrame
        One row per experiment, or per test set of one, and one column per method; higher is better.

    Raises
    ------
    ValueError
        If a score is missing, or there are fewer than three methods or two rows.
    """
    number, count = scores.shape
    if count < 3 or number < 2 or scores.isna().any(axis=None):
        raise ValueError("a critical difference needs three methods or more with scores in two experiments or more")
    ranks = scores.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    statistic, p = stats.friedmanchisquare(*scores.to_numpy(float).T)
    quantile = stats.studentized_range.ppf(LEVEL, count, np.inf) / np.sqrt(2)
    difference = float(quantile * np.sqrt(count * (count + 1) / (6 * number)))
    return CriticalDifference(ranks, float(statistic), float(p), difference, _groups(ranks, difference))


def _groups(ranks: pd.Series, difference: float) -> tuple[tuple[str, ...], ...]:
    groups, reach = [], 0
    for start, rank in enumerate(ranks):
        end = int((ranks - rank < difference).sum())
        if end > max(reach, start + 1):
            groups.append(tuple(ranks.index[start:end]))
            reach = end
    return tuple(groups)


def _both_ways(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every pair twice, as seen from either method."""
    swapped = pairs.rename(
        columns={"method": "other", "other": "method", "accuracy": "other_accuracy", "other_accuracy": "accuracy"}
    )
    swapped[["difference", "low", "high"]] = -pairs[["difference", "high", "low"]].to_numpy()
    return pd.concat([pairs, swapped[pairs.columns]], ignore_index=True)


def _correct(predictions: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    """For each test set and method, 1 where a seed (rows) is right about an image (columns), else 0."""
    right = predictions.assign(right=(predictions["label"] == predictions["prediction"]).astype(float))
    found = {}
    for name, rows in right.groupby("set", sort=False):
        table = _crossing(rows, ["method", "seed"], "right")
        methods = table.index.unique("method")
        seeds = {tuple(table.loc[method].index) for method in methods}
        if len(seeds) > 1:
            raise ValueError(f"the methods have different seeds on test set {name}")
        found[name] = {method: table.loc[method].to_numpy() for method in rows["method"].unique()}
    return found


def _one_set(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels (images,) and predictions (seeds, images) of one method on one test set."""
    if len(predictions[["method", "set"]].drop_duplicates()) != 1:
        raise ValueError("predictions of one method on one test set expected")
    labels = _crossing(predictions, ["seed"], "label").to_numpy()
    return labels[0], _crossing(predictions, ["seed"], "prediction").to_numpy()


def _crossing(rows: pd.DataFrame, runs: list[str], values: str) -> pd.DataFrame:
    """Values with runs as rows and images as columns."""
    if rows.groupby("index")["label"].nunique().max() > 1:
        raise ValueError("runs disagree about an image's label: they saw different images")
    table = rows.set_index([*runs, "index"])[values]
    if table.index.has_duplicates:
        raise ValueError("an image occurs twice in a run")
    table = table.unstack("index")
    if table.isna().any(axis=None):
        raise ValueError("some runs lack images that others have")
    return table
