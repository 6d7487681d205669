"""The diseases of the chest phantom: shadows inside the lungs that differ by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isnet_bench.data.phantom.anatomy import Scene, random_field, soft

CLASSES = ("normal", "pneumonia", "covid19")
# Of a mean lung, in body coordinates.
_TOP, _LENGTH = -0.78, 1.3
_PATCHES = 7
_FADE = 0.04
# Lower and upper edge of the upper, middle and lower zone that a pneumonia fills, as parts of the lung's height.
_ZONES = np.array([[0.12, 0.42], [0.38, 0.68], [0.62, 0.98]])


@dataclass(frozen=True)
class Disease:
    """What differs from patient to patient. Places are parts of a lung's width and height.

    Labels (N,) are indices of `CLASSES`; levels (N,) the density of the shadow, relative to the settings' contrast.
    Sides (N,), -1 or 1, and zones (N, 2), upper and lower edge, are those of a pneumonia; patches (N, patches, 4) those
    of a COVID-19: side, place across, place down, radius, where a radius of 0 is no patch.
    """

    labels: np.ndarray
    levels: np.ndarray
    sides: np.ndarray
    zones: np.ndarray
    patches: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> Disease:
        return Disease(**{name: values[rows] for name, values in vars(self).items()})


def draw(labels: np.ndarray, rng: np.random.Generator) -> Disease:
    """Draw a disease for each label."""
    number = len(labels)
    zones = _ZONES[rng.integers(0, len(_ZONES), number)] + rng.uniform(-0.08, 0.08, (number, 2))
    shape = (number, _PATCHES)
    present = np.arange(_PATCHES) < rng.integers(3, _PATCHES + 1, number)[:, None]
    patches = np.stack(
        [
            # In turns, so that both sides have some.
            np.where(np.arange(_PATCHES) % 2, 1, -1) * rng.choice((-1, 1), (number, 1)),
            rng.uniform(0.55, 0.98, shape),
            rng.uniform(0.25, 0.95, shape),
            rng.uniform(0.08, 0.19, shape) * present,
        ],
        axis=-1,
    )
    return Disease(labels, rng.uniform(0.35, 1.0, number), rng.choice((-1, 1), number), zones, patches)


def render(diseases: Disease, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return how much the diseases (N,) shadow each pixel (N, H, W), from 0 to about 1; 0 outside the lungs."""
    shadow = np.zeros_like(scene.image)
    draws = {CLASSES.index("pneumonia"): _consolidation, CLASSES.index("covid19"): _ground_glass}
    for label, shape in draws.items():
        rows = np.flatnonzero(diseases.labels == label)
        if len(rows):
            part = Scene(*(field[rows] for field in scene))
            shadow[rows] = shape(diseases[rows], part, rng) * diseases.levels[rows, None, None]
    # It fades towards the border, as the lung itself does.
    return shadow * np.clip(scene.inside / _FADE, 0, 1)


def _consolidation(diseases: Disease, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """One lobe of one side, dense, with an irregular border."""
    size = scene.u.shape[1]
    wobble = random_field(len(scene.u), 7, size, rng)
    texture = random_field(len(scene.u), 20, size, rng)
    upper, lower = diseases.zones.T[..., None, None]
    height = _height(scene) + 0.05 * wobble
    band = soft(height - upper, 0.05) * soft(lower - height, 0.05)
    side = scene.u * diseases.sides[:, None, None] > 0
    return band * side * np.clip(1 + 0.35 * wobble, 0.3, None) * np.clip(1 + 0.2 * texture, 0, None)


def _ground_glass(diseases: Disease, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Patches on both sides, mostly near the chest wall, hazy and grainy."""
    size = scene.u.shape[1]
    wobble = random_field(len(scene.u), 12, size, rng)
    texture = random_field(len(scene.u), 24, size, rng)
    clear = np.ones_like(scene.u)
    for side, across, down, radius in np.moveaxis(diseases.patches, 1, 0).transpose(0, 2, 1)[..., None, None]:
        u = side * (scene.medial + across * (scene.lateral - scene.medial))
        distance = np.hypot(scene.u - u, 0.8 * (_height(scene) - down) * _LENGTH)
        clear *= 1 - soft(radius * (1 + 0.5 * wobble) - distance, 0.05) * (radius > 0)
    return 0.75 * (1 - clear) * np.clip(1 + 0.5 * texture, 0, None)


def _height(scene: Scene) -> np.ndarray:
    """Return 0 at the top and 1 at the bottom of a lung of mean height."""
    return (scene.v - _TOP) / _LENGTH
