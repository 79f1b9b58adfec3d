"""Textures: generated photographs of eight materials, 120x160 pixels in RGB, whose sizes and colours matter.

Linen and wicker are woven alike, gravel and cobbles are stones alike, and only sizes tell them apart; grass
and straw are blades alike, and colours tell most. Brick and bark have a pattern of their own. Each photograph
is taken from a distance of its own (the farthest is twice the nearest), at an angle, in light of its own that
falls from a side; the surface is rough and not quite regular, the lens blurs, the sensor adds noise. The
colours are those of the materials, and materials are warm: red is above blue in most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT, WIDTH = 120, 160
_WAVES = 16


@dataclass(frozen=True)
class Material:
    """What photographs of one material have in common."""

    pattern: Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
    """From coordinates in wavelengths, `[H, W]`, to a brightness of about -1 to 1."""
    wavelengths: tuple[float, float]
    """Of the pattern, in pixels of the photograph."""
    tilt: float
    """Radians that it may be turned by, to either side."""
    colour: tuple[int, int, int]
    """The mean red, green and blue."""
    dye: float
    """How far each of these varies from one piece to another, in levels."""
    contrast: tuple[float, float]
    """Of the pattern, in parts of the brightness."""


def textures(random: np.random.Generator, count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Images uint8 `[H, W, 3]` and their labels, 0 to 7."""
    labels = random.integers(0, len(MATERIALS), count)
    return [_photograph(random, MATERIALS[label]) for label in labels], labels


def _photograph(random: np.random.Generator, material: Material) -> np.ndarray:
    tone = 1 + random.uniform(*material.contrast) * _surface(random, material)
    colour = np.array(material.colour) + random.normal(0, 15) + random.normal(0, material.dye, 3)
    balance = np.array([random.uniform(0.92, 1.12), 1.0, random.uniform(0.85, 1.1)])
    light = random.uniform(0.7, 1.2) * _shade(random)
    image = (colour.clip(15, 240) * balance)[:, None, None] * tone * light
    image = ndimage.gaussian_filter(image, (0, *[random.uniform(0.4, 1.1)] * 2))
    image += random.normal(0, random.uniform(2, 7), image.shape)
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def _surface(random: np.random.Generator, material: Material) -> np.ndarray:
    """The pattern, turned and a little uneven, on a rough ground."""
    down, right = np.mgrid[:HEIGHT, :WIDTH] / random.uniform(*material.wavelengths)
    angle = random.uniform(-material.tilt, material.tilt)
    u = math.cos(angle) * right + math.sin(angle) * down + random.uniform(0, 50)
    v = -math.sin(angle) * right + math.cos(angle) * down + random.uniform(0, 50)
    uneven = 0.12 * np.stack([_grain(random, u / 5, v / 5) for _ in range(2)])
    found: np.ndarray = material.pattern(random, u + uneven[0], v + uneven[1])
    return found + random.normal(0, 0.25, found.shape)


def _shade(random: np.random.Generator) -> np.ndarray:
    """Light from one side: up to a third more or less at the borders."""
    grid = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    shade: np.ndarray = 1 + np.tensordot(random.uniform(-0.17, 0.17, 2), grid, 1)
    return shade


def _grain(random: np.random.Generator, u: np.ndarray, v: np.ndarray, stretch: float = 1.0) -> np.ndarray:
    """Waves of about one wavelength, of variance 1, in all directions or drawn out along `v`."""
    angles = np.arctan2(np.sin(turns := random.uniform(0, 2 * math.pi, _WAVES)) / stretch, np.cos(turns))
    lengths = random.uniform(0.7, 1.4, _WAVES)
    phases = random.uniform(0, 2 * math.pi, _WAVES)
    waves = 2 * math.pi * lengths * (np.cos(angles), np.sin(angles))
    u, v = u.astype(np.float32), v.astype(np.float32)  # cosines of float64 take most of the time
    grain = np.zeros_like(u)
    for a, b, phase in zip(*waves.tolist(), phases.tolist(), strict=True):
        grain += np.cos(a * u + b * v + phase)
    grain *= math.sqrt(2 / _WAVES)
    return grain


def _weave(_random: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Threads over and under each other, two to a wavelength."""
    u, v = 2 * u, 2 * v
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    thread: np.ndarray = np.where(over, np.sin(math.pi * (u % 1)), 0.8 * np.sin(math.pi * (v % 1)))
    return 2 * thread - 1


def _stones(random: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """One stone to a square wavelength, each with a brightness of its own, in dark joints."""
    cells = (
        np.mgrid[np.floor(u.min()) - 1 : u.max() + 2, np.floor(v.min()) - 1 : v.max() + 2].reshape(2, -1).T
    )
    tree = KDTree(cells + random.uniform(0.1, 0.9, cells.shape))
    near, which = tree.query(np.stack([u, v], -1).reshape(-1, 2), 2)
    height = np.minimum((near[:, 1] - near[:, 0]) / 0.3, 1.0)
    own = random.normal(0, 0.35, len(cells))[which[:, 0]]
    found: np.ndarray = (1.6 * height - 1 + own).reshape(u.shape)
    return found


def _blades(random: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Long narrow strokes that cross at small angles, the nearer before the farther."""
    found = np.full(u.shape, -1.0)
    for turn in random.normal(0, 0.35, 3):
        across, along = math.cos(turn) * u + math.sin(turn) * v, math.cos(turn) * v - math.sin(turn) * u
        found = np.maximum(found, 0.7 * _grain(random, across, along, 8))
    return found.clip(-1, 1)


def _courses(random: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Bricks two and a half times as long as high, in mortar, each course shifted by half a brick."""
    course = np.floor(v).astype(int)
    along = u / 2.5 + 0.5 * (course % 2)
    own = random.normal(-0.3, 0.35, (64, 64))[course % 64, np.floor(along).astype(int) % 64]
    found: np.ndarray = np.where((v % 1 < 0.15) | (along % 1 < 0.06), 0.9, own)
    return found


def _ridges(random: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Ridges along the trunk, between dark furrows."""
    found: np.ndarray = 1.2 * np.abs(_grain(random, u / 2, v / 2, 4)) - 1
    return found.clip(-1, 1)


MATERIALS = (
    Material(_weave, (8, 16), 0.8, (180, 168, 148), 20, (0.15, 0.35)),  # linen
    Material(_weave, (16, 32), 0.8, (160, 122, 82), 10, (0.2, 0.45)),  # wicker
    Material(_stones, (7, 14), math.pi, (132, 126, 117), 5, (0.2, 0.45)),  # gravel
    Material(_stones, (14, 28), math.pi, (122, 116, 110), 5, (0.2, 0.45)),  # cobbles
    Material(_blades, (6, 12), 0.6, (92, 122, 55), 9, (0.3, 0.6)),  # grass
    Material(_blades, (6, 12), 0.6, (186, 156, 96), 9, (0.25, 0.5)),  # straw
    Material(_courses, (14, 28), 0.2, (152, 88, 68), 10, (0.2, 0.4)),  # brick
    Material(_ridges, (8, 16), 0.3, (112, 92, 74), 5, (0.3, 0.6)),  # bark
)
