"""What a data set is, to all that comes after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

NO_MASK = 255
"""Value of all pixels of the mask of an image that has none, on disk; where it is read it is NaN."""


class Rows(Protocol):
    """What is indexed by images like a tensor, and gives tensors: one, or what reads them from disk."""

    @property
    def shape(self) -> torch.Size:
        """Images come first."""
        ...

    def __len__(self) -> int: ...

    def size(self, dim: int) -> int:
        """Return the length in a dimension."""
        ...

    def __getitem__(self, key: Any) -> Tensor: ...


class Split(NamedTuple):
    """One split, to be indexed.

    Images float32 (N, C, H, W) in [0, 1]; masks float32 (N, 1, H, W), 1 = foreground, NaN where an image has no mask;
    labels int64 (N,). Images and masks are tensors, or `isnet_bench.data.stored.StoredImages` and `StoredMasks` where
    they are many: what is indexed is read from disk then, and nothing else.
    """

    images: Rows
    masks: Rows
    labels: Tensor


class GroupedSplit(NamedTuple):
    """A `Split` whose images have groups, int64 (N,): which entry each has of `Groups.names`."""

    images: Rows
    masks: Rows
    labels: Tensor
    groups: Tensor


class Groups(NamedTuple):
    """Groups of images in the sense of Sagawa et al. (ICLR 2020): a class with a value of an attribute.

    `ids`: int64 (N,), ``label * attributes + attribute`` of each image; ``names[id]``: its class and its attribute.
    """

    ids: np.ndarray
    names: tuple[tuple[str, str], ...]


class Arrays(NamedTuple):
    """One split on disk: like `Split`, but images uint8 in 0..255 and masks uint8, `NO_MASK` in place of NaN."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class DataSet:
    """A data set, made.

    Attributes
    ----------
    name, title : str
        For files and for the titles of tables and figures. A stand-in says so in both.
    stand_in : bool
        Whether other data stand in for those that were asked for.
    classes : tuple of str
        Name of each label.
    splits : mapping
        "train", "val" and each test set.
    test_sets : tuple of str
        In the order of the tables; the first is distributed like the training images.
    background_changes : mapping
        Name of a change of the background to two test sets, before and after it, which show the same foregrounds
        in the same order.
    records : mapping
        Of some or all splits, one row for each image: what is to be known of it besides its label.
    texts : mapping
        Name of a file to its text: reports to be written beside the data.
    details : mapping
        What else data.json shall tell.
    groups : mapping
        Of some or all splits, an attribute of each image besides its label, int64 (N,): an index of `group_names`. The
        groups that are told apart are each class with each attribute.
    group_names : tuple of str
        Name of each attribute; empty where no split has any.
    """

    name: str
    title: str
    stand_in: bool
    classes: tuple[str, ...]
    splits: Mapping[str, Arrays]
    test_sets: tuple[str, ...]
    background_changes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    records: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    group_names: tuple[str, ...] = ()


def has_mask(masks: np.ndarray) -> np.ndarray:
    """Return which of the masks uint8 (N, 1, H, W) there are, bool (N,)."""
    return masks[:, 0, 0, 0] != NO_MASK
