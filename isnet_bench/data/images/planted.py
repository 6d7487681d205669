"""Marks that are planted in the backgrounds of images that a manifest lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isnet_bench.data import bias
from isnet_bench.data.base import Arrays
from isnet_bench.data.images.collection import Part, changed
from isnet_bench.data.stored import Room, in_memory, pieces


def with_marks(
    parts: Mapping[str, Part], marks: bias.Bias, labels: Sequence[str], seed: int, room: Room = in_memory
) -> tuple[dict[str, Part], dict[str, int]]:
    """Return "train", "val", "iid", "ood" and "deceiving", and how many masks of each split gave way to marks.

    `parts` are "train", "val" and "test_iid", whose images the three test sets show. Marked images go into the `room`.
    Records get the column mark, the label whose mark it is, and `with_groups` tells of. Raises BenchError if marks do
    not fit.
    """
    size = parts["train"].arrays.images.shape[-1]
    drawn = bias.make_marks(marks, len(labels), size)
    ready, cut = {}, {}
    for split in ("train", "val", "test_iid"):
        arrays, cut[split] = _make_way(parts[split].arrays, drawn, room)
        ready[split] = parts[split]._replace(arrays=arrays)
    rng = np.random.default_rng(seed)
    named = {
        name: _marked(ready.get(name, ready["test_iid"]), drawn, strength, labels, rng, room)
        for name, strength in bias.strengths(marks).items()
    }
    return (with_groups(named, "mark", labels) if marks.strength < 1 else named), cut


def with_groups(parts: Mapping[str, Part], column: str, labels: Sequence[str]) -> dict[str, Part]:
    """Return parts whose records have the column group, one of `bias.GROUPS`, where they had none.

    `column` names the label whose mark or place an image has; where it is empty, an image has no group.
    """
    made = {}
    for name, (arrays, records) in parts.items():
        if "group" not in records and (records[column] != "").all():
            own = records[column].to_numpy() == np.array(labels)[arrays.labels]
            records = records.assign(group=np.where(own, *bias.GROUPS))
        made[name] = Part(arrays, records)
    return made


def _make_way(arrays: Arrays, marks: bias.Marks, room: Room) -> tuple[Arrays, int]:
    """Take the marks' place out of foregrounds that leave none free, such as those of tightly cropped lungs."""
    if marks.sides is None:
        return arrays, 0
    place = marks.covers.any(0)
    corners = [place, place[:, ::-1], place[::-1, ::-1], place[::-1]] if marks.corner else [place]
    blocked = np.zeros(len(arrays.labels), bool)
    for rows in pieces(arrays.masks):
        blocked[rows] = np.all([(arrays.masks[rows, 0] & corner).any((1, 2)) for corner in corners], axis=0)
    if not blocked.any():
        return arrays, 0

    def cut(rows: slice) -> np.ndarray:
        return np.where(blocked[rows, None, None, None], arrays.masks[rows] & ~place, arrays.masks[rows])

    return arrays._replace(masks=changed([arrays.masks], cut, room)), int(blocked.sum())


def _marked(
    part: Part,
    marks: bias.Marks,
    strength: float | None,
    labels: Sequence[str],
    rng: np.random.Generator,
    room: Room,
) -> Part:
    arrays, records = part
    if strength is None:
        return Part(arrays, records.assign(mark=""))
    which = bias.choose(arrays.labels, len(labels), strength, rng)

    def marked(rows: slice) -> np.ndarray:
        return bias.apply(arrays.images[rows], arrays.masks[rows], marks, which[rows])

    images = changed(arrays[:2], marked, room)
    return Part(arrays._replace(images=images), records.assign(mark=np.array(labels)[which]))
