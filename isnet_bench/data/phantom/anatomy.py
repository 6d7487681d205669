"""The body of the chest phantom: outline, lungs, heart, bones and vessels, different in every image.

Body coordinates: u across, v downwards, both about -1 to 1 over the image; u < 0 is the body's right side, on
the left of the image. Grey levels: 0 black (air), 1 white (bone). Fields are float32 arrays (N, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

# Lowest and highest value of what differs from body to body, uniformly distributed.
_WHOLE = {
    "scale": (0.88, 1.02),
    "shift_u": (-0.05, 0.05),
    "shift_v": (-0.05, 0.08),
    "tilt": (-0.07, 0.07),
    "shoulder": (-0.92, -0.8),
    "neck": (0.18, 0.25),
    "waist": (0.84, 1.05),
    "heart_u": (0.1, 0.16),
    "heart_v": (0.22, 0.32),
    "heart_width": (0.3, 0.4),
    "heart_height": (0.2, 0.28),
    "spine_level": (0.03, 0.1),
    "rib_level": (0.06, 0.15),
    "rib_spacing": (0.145, 0.185),
    "rib_phase": (0.0, 1.0),
    "clavicle_level": (0.1, 0.18),
    "vessel_level": (0.05, 0.11),
    "haze_level": (0.02, 0.06),
    "breast_level": (-0.05, 0.1),
    "breast_v": (0.1, 0.3),
    "stomach_level": (-0.1, 0.25),
    "tissue": (0.56, 0.7),
    "air": (0.2, 0.36),
    "brightness": (-0.05, 0.05),
    "contrast": (0.85, 1.12),
}
# The same, but drawn for either side.
_SIDED = {
    "top": (-0.84, -0.72),
    "widest": (0.0, 0.2),
    "width": (0.5, 0.6),
    "roundness": (1.9, 2.8),
    "medial": (0.09, 0.13),
    "dome": (0.4, 0.54),
    "sink": (0.1, 0.22),
    "rib_slope": (0.1, 0.3),
    "rib_fall": (0.12, 0.26),
    "clavicle_slope": (0.05, 0.3),
    "clavicle_v": (-0.62, -0.52),
}
_APEX = 0.26
_DOME_CENTRE, _DOME_REACH = 0.38, 0.34


@dataclass(frozen=True)
class Body:
    """What differs from body to body: name to values, `whole` (N, 1, 1), or `sided` (N, 2), right and left side."""

    whole: dict[str, np.ndarray]
    sided: dict[str, np.ndarray]

    def __getitem__(self, rows: slice | np.ndarray) -> Body:
        return Body(
            {name: values[rows] for name, values in self.whole.items()},
            {name: values[rows] for name, values in self.sided.items()},
        )


class Scene(NamedTuple):
    """Bodies on the image's pixels.

    ``image``: grey levels. ``u``, ``v``: body coordinates. ``inside``: about how far a pixel lies inside the lungs,
    in body coordinates; negative outside, and the lungs are where it is positive. ``lateral``, ``medial``: |u| of
    the lung's outer and inner border at that height.
    """

    image: np.ndarray
    u: np.ndarray
    v: np.ndarray
    inside: np.ndarray
    lateral: np.ndarray
    medial: np.ndarray


def draw(number: int, variation: float, rng: np.random.Generator) -> Body:
    """Draw bodies; `variation` in [0, 1] scales how far they depart from the mean body."""

    def uniform(low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        spread = variation * (high - low) / 2
        return ((low + high) / 2 + spread * rng.uniform(-1, 1, shape)).astype(np.float32)

    return Body(
        {name: uniform(*limits, (number, 1, 1)) for name, limits in _WHOLE.items()},
        {name: uniform(*limits, (number, 2)) for name, limits in _SIDED.items()},
    )


def render(bodies: Body, image_size: int, rng: np.random.Generator) -> Scene:
    """Draw bodies (N,) on images of `image_size` pixels; `rng` gives vessels and haze."""
    whole = bodies.whole
    u, v = _coordinates(whole, image_size)
    a, pixel = np.abs(u), 2 / image_size
    sided = {name: np.where(u < 0, *(values.T[..., None, None])) for name, values in bodies.sided.items()}
    lateral, medial, diaphragm = _lung_borders(a, v, sided)
    heart = _heart(u, v, whole)
    inside = np.minimum.reduce([a - medial, lateral - a, diaphragm - v, heart, v - sided["top"]])
    body = soft(_outline(v, whole) - a, 0.015 + pixel / 2)
    lungs = soft(inside, 0.012 + pixel / 3)
    image = _tissue(u, v, whole, diaphragm, heart)
    image += lungs * (whole["air"] - image)
    image += lungs * _vessels(u, v, whole, rng)
    image += body * _bones(a, v, whole, sided, lateral, pixel)
    image += body * _breasts(a, v, whole)
    image = (0.02 + body * (image - 0.02) - 0.5) * whole["contrast"] + 0.5 + body * whole["brightness"]
    return Scene(image, u, v, inside, lateral, medial)


def grid(image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (1, 1, W) and y (1, H, 1) of the pixels' centres, from -1 to 1."""
    centres = ((2 * np.arange(image_size) + 1) / image_size - 1).astype(np.float32)
    return centres[None, None, :], centres[None, :, None]


def soft(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Return a step from 0 to 1 where `distance` turns positive, `width` wide."""
    return 0.5 + 0.5 * np.tanh(distance / width)


def random_field(number: int, cells: int, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Return smooth noise (number, image_size, image_size) of variance about 1/2, with `cells` bumps a side."""
    coarse = torch.from_numpy(rng.standard_normal((number, 1, cells, cells), dtype=np.float32))
    return F.interpolate(coarse, size=(image_size, image_size), mode="bicubic")[:, 0].numpy()


def _coordinates(whole: dict[str, np.ndarray], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = grid(image_size)
    x, y = x - whole["shift_u"], y - whole["shift_v"]
    cosine, sine = np.cos(whole["tilt"]) / whole["scale"], np.sin(whole["tilt"]) / whole["scale"]
    return cosine * x + sine * y, cosine * y - sine * x


def _lung_borders(
    a: np.ndarray, v: np.ndarray, sided: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return |u| of the outer and of the inner border, and v of the diaphragm below."""
    height = np.clip((sided["widest"] - v) / (sided["widest"] - sided["top"]), 0, 1)
    lateral = _APEX + (sided["medial"] + sided["width"] - _APEX) * np.sqrt(1 - height ** sided["roundness"])
    medial = sided["medial"] + (_APEX - sided["medial"]) * height**8
    diaphragm = sided["dome"] + sided["sink"] * ((a - _DOME_CENTRE) / _DOME_REACH) ** 2
    return lateral, medial, diaphragm


def _heart(u: np.ndarray, v: np.ndarray, whole: dict[str, np.ndarray]) -> np.ndarray:
    """Return about how far a pixel lies outside the heart and the great vessels above it."""
    across, down = u - whole["heart_u"], v - whole["heart_v"]
    down = np.where(down > 0, 0.5 * down, down)
    long, short = 0.8 * across + 0.6 * down, 0.8 * down - 0.6 * across
    radius = np.hypot(long / whole["heart_width"], short / whole["heart_height"])
    # The arch of the aorta, and below it the trunk of the lung's arteries.
    trunk = np.sqrt(((u - 0.08) / 0.12) ** 2 + ((v + 0.14) / 0.28) ** 4)
    return np.minimum((radius - 1) * whole["heart_height"], (trunk - 1) * 0.12)


def _outline(v: np.ndarray, whole: dict[str, np.ndarray]) -> np.ndarray:
    """Return the body's half width: neck, shoulders, and arms that come and go with the waist."""
    shoulders = 0.74 * soft(v - whole["shoulder"], 0.1) + 0.12 * soft(v - whole["shoulder"] - 0.25, 0.15)
    return whole["neck"] + shoulders - (1.06 - whole["waist"]) * soft(v + 0.1, 0.15)


def _tissue(
    u: np.ndarray, v: np.ndarray, whole: dict[str, np.ndarray], diaphragm: np.ndarray, heart: np.ndarray
) -> np.ndarray:
    a = np.abs(u)
    middle = 0.1 * soft(0.13 - a, 0.05)
    middle += (0.06 * np.cos(v * 38) + 1) * whole["spine_level"] * soft(0.085 - a, 0.015)
    middle -= 0.1 * soft(0.03 - a, 0.015) * soft(-0.3 - v, 0.05)
    stomach = np.hypot((u - 0.42) / 0.2, (v - diaphragm - 0.12) / 0.1)
    low = soft(v - diaphragm, 0.03 + np.maximum(a - 0.6, 0)) * (
        0.16 - np.maximum(whole["stomach_level"], 0) * soft(1 - stomach, 0.2)
    )
    return whole["tissue"] + middle + np.maximum(low, 0.14 * soft(-heart, 0.04)) + 0.04 * v


def _bones(
    a: np.ndarray,
    v: np.ndarray,
    whole: dict[str, np.ndarray],
    sided: dict[str, np.ndarray],
    lateral: np.ndarray,
    pixel: float,
) -> np.ndarray:
    # Behind: from the spine outwards and down, steeply near the chest wall. In front: outwards and up, fainter.
    wall = (a / (sided["medial"] + sided["width"])) ** 4
    behind = v - sided["rib_slope"] * a - sided["rib_fall"] * wall
    front = v + 0.9 * sided["rib_slope"] * a + 0.35 * a**2
    cage = soft(lateral + 0.04 - a, 0.02) * soft(a - 0.05, 0.03) * soft(v + 0.82, 0.03) * soft(0.75 - v, 0.05)
    ribs = _bands(behind / whole["rib_spacing"] + whole["rib_phase"], pixel)
    ribs += 0.45 * _bands(front / whole["rib_spacing"] - whole["rib_phase"], pixel) * soft(a - 0.25, 0.05)
    slope = sided["clavicle_slope"]
    clavicle = v - sided["clavicle_v"] + slope * (a - 0.1) + 0.06 * np.sin(5.5 * (a - 0.1))
    clavicle = soft(0.032 - np.abs(clavicle), 0.01 + pixel / 3) * soft(a - 0.07, 0.02) * soft(0.8 - a, 0.03)
    shoulder = soft(1 - np.hypot((a - 0.9) / 0.13, (v + 0.6) / 0.16), 0.12)
    return whole["rib_level"] * ribs * cage + whole["clavicle_level"] * clavicle + 0.12 * shoulder


def _bands(phase: np.ndarray, pixel: float) -> np.ndarray:
    """Return ribs, one for each unit of `phase`, brighter at their edges."""
    wave = np.cos(2 * np.pi * phase)
    return soft(wave - 0.25, 0.25 + 4 * pixel) * (1 - 0.35 * soft(wave - 0.8, 0.15))


def _vessels(u: np.ndarray, v: np.ndarray, whole: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return streaks that run outwards from either hilum and fade, and a haze."""
    number, image_size = len(u), u.shape[1]
    across, down = np.abs(u) - 0.14, v + 0.02
    distance = np.hypot(across, down)
    angle = np.arctan2(down, across) / np.pi
    # Polar coordinates make streaks of noise that is fine in the angle; its halves serve the two sides.
    where = np.stack([(angle / 2 + 0.5) * np.sign(u), np.clip(2 * distance - 1, -1, 1)], axis=-1)
    noise = torch.from_numpy(rng.standard_normal((number, 1, 6, 60), dtype=np.float32))
    streaks = F.grid_sample(noise, torch.from_numpy(where), align_corners=False)[:, 0].numpy()
    fade = np.exp(-2.2 * distance)
    hilum = np.exp(-((distance / 0.16) ** 2))
    haze = random_field(number, 5, image_size, rng) * whole["haze_level"]
    return whole["vessel_level"] * (np.abs(streaks) * fade + 1.3 * hilum) + haze


def _breasts(a: np.ndarray, v: np.ndarray, whole: dict[str, np.ndarray]) -> np.ndarray:
    """Return a shadow on the lower half of either side, in some of the bodies."""
    radius = np.hypot((a - 0.45) / 0.42, (v - whole["breast_v"]) / 0.38)
    return np.maximum(whole["breast_level"], 0) * soft(1 - radius, 0.1)
