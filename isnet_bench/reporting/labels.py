"""Labels beside the points of a figure, so that none covers another where that can be had."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from isnet_bench.reporting import style

__all__ = ["place"]

_FONT_SIZE = 6
_NEAR = 4
# In points: from a marker to its label (farther ones are tied to it by a line), and in degrees.
_DISTANCES = (_NEAR, 8, 13, 19, 26, 34, 43, 53)
_DIRECTIONS = (40, 320, 140, 220, 0, 180, 90, 270, 20, 340, 160, 200, 65, 115, 295, 245)
_MARKER = 2.5
_BAR = 0.7
_PADDING = np.array([1.5, 0.4])
_SWEEPS = 6
_STEPS = 12
# What a place costs for each square point of another label, of a marker or of a bar that it covers, each label's line
# that is in the way, each point that it leaves the panel by, each point of distance.
_COSTS = {"label": 40.0, "marker": 15.0, "bar": 2.0, "line": 80.0, "outside": 200.0, "distance": 3.0}


class _Spot(NamedTuple):
    """Where a label may be, in points.

    Its box, points along the line from its marker (shape (steps, 2)), how long that is, and the side of the text where
    it ends: 0 is left or bottom, 1 right or top.
    """

    box: np.ndarray
    line: np.ndarray
    distance: float
    offset: np.ndarray
    side: np.ndarray


def place(panel: Axes, points: np.ndarray, labels: Sequence[str], spans: np.ndarray) -> list[Annotation]:
    """Write a label beside each point, where it covers no other label, marker or bar if that can be had.

    Labels are placed one after another, each where it costs least, and then anew, given all others. A thin line leads
    to a label that is not beside its marker. Same input, same places.

    Parameters
    ----------
    panel : Axes
        Already laid out, in a figure of the resolution that it is saved with.
    points : ndarray
        Shape (n, 2), data coordinates.
    labels : sequence of str
        One for each point.
    spans : ndarray
        Shape (n, 2, 2): low and high ends of the bar along x, and of that along y; NaN where there is none.
    """
    pixel = panel.figure.dpi / 72
    at = panel.transData.transform(points) / pixel
    sizes = [_size(panel, label) / pixel for label in labels]
    frame = panel.get_window_extent().get_points() / pixel
    fixed = {"marker": np.stack([at - _MARKER, at + _MARKER], 1), "bar": _bars(panel, points, spans) / pixel}
    chosen: dict[int, _Spot] = {}
    for _, number in product(range(_SWEEPS), np.argsort(_solitude(at), kind="stable")):
        others = [spot for other, spot in chosen.items() if other != number]
        spots = [_spot(at[number], sizes[number], *polar) for polar in product(_DISTANCES, _DIRECTIONS)]
        chosen[number] = min(spots, key=lambda spot: _cost(spot, others, fixed, frame))
    return [_write(panel, points[number], labels[number], chosen[number]) for number in range(len(points))]


def _size(panel: Axes, label: str) -> np.ndarray:
    text = panel.text(0, 0, label, fontsize=_FONT_SIZE)
    size = text.get_window_extent().size
    text.remove()
    return size


def _write(panel: Axes, point: np.ndarray, label: str, spot: _Spot) -> Annotation:
    line = {
        "arrowstyle": "-", "linewidth": 0.4, "color": style.GREY, "shrinkA": 0, "shrinkB": _MARKER,
        "relpos": tuple(spot.side),
    }  # fmt: skip
    x, y = (2 * spot.side).astype(int)
    return panel.annotate(
        label, point, tuple(spot.offset), textcoords="offset points", fontsize=_FONT_SIZE, zorder=4,
        ha=("left", "center", "right")[x], va=("bottom", "center", "top")[y],
        arrowprops=line if spot.distance > _NEAR else None,
        path_effects=[style.halo()],
    )  # fmt: skip


def _bars(panel: Axes, points: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Boxes (2 n, 2, 2) of the bars, in pixels; a bar that is not there has no extent."""
    boxes = []
    for axis in (0, 1):
        ends = np.repeat(points[:, None], 2, axis=1)
        ends[:, :, axis] = np.where(np.isnan(spans[:, axis]), points[:, None, axis], spans[:, axis])
        corners = panel.transData.transform(ends.reshape(-1, 2)).reshape(ends.shape)
        thick = np.zeros(2)
        thick[1 - axis] = _BAR * panel.figure.dpi / 72
        boxes.append(np.stack([corners[:, 0] - thick, corners[:, 1] + thick], 1))
    return np.concatenate(boxes)


def _solitude(at: np.ndarray) -> np.ndarray:
    """Mean distance of each point to the third of the points that is nearest to it."""
    distances = np.linalg.norm(at[:, None] - at, axis=-1)
    return np.sort(distances, axis=1)[:, : len(at) // 3 + 1].mean(axis=1)


def _spot(at: np.ndarray, size: np.ndarray, distance: float, degrees: float) -> _Spot:
    direction = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    offset = distance * direction
    side = np.select([direction > 0.3, direction < -0.3], [0.0, 1.0], 0.5)
    corner = at + offset - side * size
    box = np.stack([corner - _PADDING, corner + size + _PADDING])
    # Not from the marker's middle: it is no obstacle to its own line.
    line = at + np.linspace(1.5 * _MARKER, distance, _STEPS)[:, None] * direction
    return _Spot(box, line, distance, offset, side)


def _cost(spot: _Spot, others: list[_Spot], fixed: dict[str, np.ndarray], frame: np.ndarray) -> float:
    boxes = np.array([other.box for other in others]).reshape(-1, 2, 2)
    lines = np.array([other.line for other in others if other.distance > _NEAR]).reshape(-1, _STEPS, 2)
    crossed = _crossed(lines, spot.box[None])
    if spot.distance > _NEAR:
        crossed += _crossed(spot.line[None], np.concatenate([boxes, fixed["marker"]]))
    found = {
        "label": _overlap(spot.box, boxes),
        "marker": _overlap(spot.box, fixed["marker"]),
        "bar": _overlap(spot.box, fixed["bar"]),
        "line": crossed,
        "outside": np.maximum([frame[0] - spot.box[0], spot.box[1] - frame[1]], 0).sum(),
        "distance": spot.distance,
    }
    return sum(_COSTS[name] * amount for name, amount in found.items())


def _overlap(box: np.ndarray, others: np.ndarray) -> float:
    """Area that a box has in common with others, (n, 2, 2): lower left and upper right corner of each."""
    common = np.minimum(box[1], others[:, 1]) - np.maximum(box[0], others[:, 0])
    return float(np.maximum(common, 0).prod(axis=1).sum())


def _crossed(lines: np.ndarray, boxes: np.ndarray) -> int:
    """How many pairs of a line, (m, steps, 2), and a box, (n, 2, 2), meet."""
    inside = (lines[:, None] > boxes[:, None, 0]) & (lines[:, None] < boxes[:, None, 1])
    return int(inside.all(axis=-1).any(axis=-1).sum())
