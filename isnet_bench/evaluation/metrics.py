"""How right a classifier is, with 95 % intervals over images; formulae and sources are in docs/statistics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

_TAILS = (0.025, 0.975)


def classification(
    labels: np.ndarray, probabilities: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Measure a classifier on one test set.

    The prediction is the class of the largest probability. Macro F1 and balanced accuracy (macro recall) are means
    over the classes that occur among the labels, all with the same weight, so that predicting a class that does not
    occur costs only the recall of those that do. The AUC is the mean of the areas of each class against the rest.

    The intervals of accuracy, macro F1 and balanced accuracy are percentile intervals of a bootstrap over images,
    stratified by label: the class counts of the test sets are fixed by whoever put them together, and no resample loses
    a rare class, which would change what is averaged. All three depend on the confusion matrix alone, and resampling
    images within a class draws that class's row of it from a multinomial distribution. An interval has no width where
    its data have no variance, for example where every image is classified rightly.

    Parameters
    ----------
    labels : ndarray
        Shape (N,), integers in 0 ... K - 1.
    probabilities : ndarray
        Shape (N, K).
    resamples : int
        Number of bootstrap resamples.
    seed : int
        Of the resamples.

    Returns
    -------
    dict
        Ready for JSON: "accuracy", "macro_f1", "balanced_accuracy" and "auc" as fractions of 1, the first three with
        an interval such as "accuracy_interval" [low, high]; "per_class", for each class its "precision", "recall",
        "specificity" and "support" (images); "confusion", rows are labels and columns predictions. What is undefined
        is None: the AUC where a class has no image, the precision of a class that is never predicted, the recall of
        one that does not occur.

    Raises
    ------
    ValueError
        If shapes do not match, there is no image, a label is out of range or a probability is not finite.
    """
    labels, probabilities = _checked(labels, probabilities)
    predictions, classes = probabilities.argmax(1), np.arange(probabilities.shape[1])
    present = np.unique(labels)
    confusion = confusion_matrix(labels, predictions, labels=classes)
    macro = {"labels": present, "average": "macro", "zero_division": 0}
    resampled = _resample(confusion, resamples, np.random.default_rng(seed))
    intervals = {
        f"{name}_interval": np.quantile(metric(resampled), _TAILS).tolist()
        for name, metric in CONFUSION_METRICS.items()
    }
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_f1": float(f1_score(labels, predictions, **macro)),
        "balanced_accuracy": float(recall_score(labels, predictions, **macro)),
        **intervals,
        "auc": _auc(labels, probabilities),
        "per_class": _per_class(labels, predictions, classes),
        "confusion": confusion.tolist(),
    }


def by_group(
    labels: np.ndarray, predictions: np.ndarray, ids: np.ndarray, names: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Measure a classifier on each group of a test set (Sagawa et al., ICLR 2020).

    Parameters
    ----------
    labels, predictions, ids : ndarray
        Shape (N,), integers: class, predicted class and group of each image.
    names : sequence
        Class and attribute of each group.

    Returns
    -------
    dict
        Ready for JSON: "worst_group_accuracy", the lowest of all groups that have images; "mean_group_accuracy", their
        mean with equal weights; "per_group", a mapping for each of them with its "class", "group", "accuracy" and
        "support" (images). Accuracies are fractions of 1.
    """
    images = np.bincount(ids, minlength=len(names))
    right = np.bincount(ids[labels == predictions], minlength=len(names))
    per_group = [
        {"class": names[k][0], "group": names[k][1], "accuracy": float(right[k] / images[k]), "support": int(images[k])}
        for k in np.flatnonzero(images)
    ]
    accuracies = [group["accuracy"] for group in per_group]
    return {
        "worst_group_accuracy": min(accuracies),
        "mean_group_accuracy": float(np.mean(accuracies)),
        "per_group": per_group,
    }


def _auc(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    number = probabilities.shape[1]
    if len(np.unique(labels)) < max(number, 2):
        return None
    return float(np.mean([roc_auc_score(labels == k, probabilities[:, k]) for k in range(number)]))


def _resample(confusion: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Confusion matrices (resamples, K, K) of resamples that keep the number of images of each label."""
    rows = [generator.multinomial(row.sum(), row / max(row.sum(), 1), resamples) for row in confusion]
    return np.stack(rows, axis=1)


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    hits, images = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
    return _mean_over_present(2 * hits / np.maximum(images + confusion.sum(-2), 1), images)


def _balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    images = confusion.sum(-1)
    return _mean_over_present(np.diagonal(confusion, axis1=-2, axis2=-1) / np.maximum(images, 1), images)


def _mean_over_present(values: np.ndarray, images: np.ndarray) -> np.ndarray:
    present = images > 0
    return np.where(present, values, 0).sum(-1) / present.sum(-1)


CONFUSION_METRICS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "macro_f1": _macro_f1,
    "balanced_accuracy": _balanced_accuracy,
}
"""What follows from confusion matrices (..., K, K), rows are labels: functions that give the metric, shape (...)."""


def _per_class(labels: np.ndarray, predictions: np.ndarray, classes: np.ndarray) -> list[dict[str, Any]]:
    precision, recall, _, support = precision_recall_fscore_support(
        labels, predictions, labels=classes, zero_division=np.nan
    )
    specificity = [recall_score(labels != k, predictions != k, zero_division=np.nan) for k in classes]
    shares = zip(precision, recall, specificity, strict=True)
    return [
        dict(zip(("precision", "recall", "specificity"), map(_defined, values), strict=True)) | {"support": int(images)}
        for values, images in zip(shares, support, strict=True)
    ]


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise ValueError(f"labels (N,) and probabilities (N, K) expected, not {labels.shape} and {probabilities.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be integers in 0 ... {probabilities.shape[1] - 1}")
    if not np.isfinite(probabilities).all():
        raise ValueError("some probabilities are not finite")
    return labels, probabilities
