"""Whether grey values alone tell where an image comes from, as they do where files were scaled by different rules."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

STATISTICS = ("minimum", "median", "maximum", "mean", "deviation")
"""Columns of what is measured inside an image's foreground."""
_FOLDS = 5
_TELLING = 0.9


def statistics(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return `STATISTICS` of an image's grey values, uint8 (H, W), where the mask (H, W) is not 0."""
    inside = image[mask > 0].astype(np.float64)
    values = (inside.min(), np.median(inside), inside.max(), inside.mean(), inside.std())
    return dict(zip(STATISTICS, map(float, values), strict=True))


def auc(seen: pd.DataFrame, column: str) -> float:
    """Return how well `STATISTICS` tell a column apart: the AUC of a logistic regression, cross-validated in 5 parts.

    It is the mean over the column's values, each against the others, of the training images; values that fewer than 5
    of these have do not count. NaN: less than two are left.
    """
    # A second of start-up that other data do without.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = seen[seen["split"] == "train"]
    train = train[train.groupby(column)[column].transform("size") >= _FOLDS]
    if train[column].nunique() < 2:
        return np.nan
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    measured = train[list(STATISTICS)].to_numpy()
    found = cross_val_predict(model, measured, train[column], cv=folds, method="predict_proba")
    names = sorted(train[column].unique())
    return float(np.mean([roc_auc_score(train[column] == name, found[:, place]) for place, name in enumerate(names)]))


def table(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC for the source and for the label of training images."""
    told = ["source", "label"]
    return pd.DataFrame({"told by five grey statistics": told, "AUC": [round(auc(seen, one), 2) for one in told]})


def warnings(found: pd.DataFrame) -> Iterator[str]:
    """Warn of what the statistics tell all but surely, given the `table`."""
    for what, value in found.itertuples(index=False):
        if value >= _TELLING:
            yield (
                f"in train, five statistics of the grey values inside the foreground tell the {what} (AUC "
                f"{value:.2f}), against which no mask helps"
            )
