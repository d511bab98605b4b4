"""Derives a moving background from a prompt: its colours, its kind of motion, its lights.

The same prompt always gives the same picture.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BLACK, WHITE = 16, 235  # luma in limited range
CELL = 8  # pixels per background grid point


@dataclass(frozen=True, slots=True)
class Palette:
    """A ground colour and four that move over it (sRGB hex); `hints` are words of a prompt that call for it."""

    name: str
    ground: str
    colours: tuple[str, str, str, str]
    hints: frozenset[str] = frozenset()


def _palette(name: str, ground: str, colours: str, hints: str) -> Palette:
    first, second, third, fourth = colours.split()
    return Palette(name, ground, (first, second, third, fourth), frozenset(hints.split()))


PALETTES: tuple[Palette, ...] = (
    _palette("dusk", "1b1035", "ff7e5f feb47b 7f3fbf 2d1b69", "sunset dusk sunrise dawn evening horizon"),
    _palette("ocean", "041c32", "0093e9 80d0c7 064663 1fa2ff", "ocean sea water wave waves fish whale river rain"),
    _palette("forest", "0b2016", "2f9e62 a8e063 11543a 56ab2f", "forest tree trees jungle leaf garden green grass"),
    _palette("ember", "210707", "ff512f f09819 8e0e00 dd2476", "fire lava flame volcano dragon red autumn desert"),
    _palette("night", "070b1f", "3a1c71 5b86e5 141e5a 9d50bb", "night space stars galaxy moon planet universe rocket"),
    _palette("aurora", "03141c", "00c9a7 43e97b 1a2a6c b06ab3", "aurora north ice glacier magic dream"),
    _palette("candy", "2a0f33", "ff6fd8 ffc3a0 7b2ff7 f107a3", "pink candy love flower flowers party cake rose"),
    _palette("neon", "0a0618", "f72585 4cc9f0 3a0ca3 7209b7", "city neon cyberpunk robot street car future music"),
    _palette("gold", "1d1303", "f7b733 fc4a1a 7a4a0a ffe29f", "gold sun summer honey bee wheat coffee lion"),
    _palette("frost", "0e2233", "a1c4fd c2e9fb 355c7d 6dd5ed", "snow winter frost cold mountain mountains cloud sky"),
)  # fmt: skip


def choose_palette(prompt: str) -> Palette:
    """Return the palette the prompt's words ask for most, else one picked by its hash."""
    words = [word.strip(".,;:!?\"'()[]") for word in prompt.lower().split()]
    scores = [sum(word in palette.hints for word in words) for palette in PALETTES]
    if max(scores) > 0:
        return PALETTES[scores.index(max(scores))]
    return PALETTES[_digest(prompt)[0] % len(PALETTES)]


def _digest(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()


def _ycbcr(colour: str) -> Floats:
    """sRGB hex -> Y'CbCr BT.709 limited range, as floats in 8-bit units."""
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return np.array([16 + 219 * y, 128 + 224 * (b - y) / 1.8556, 128 + 224 * (r - y) / 1.5748], np.float32)


def _middles(cells: int) -> Floats:
    """The middles of cells that divide -1..1."""
    return ((np.arange(cells, dtype=np.float32) + 0.5) / cells * 2 - 1).astype(np.float32)


def _step(values: Floats) -> Floats:
    """A soft step from 0 to 1 around 0."""
    return np.asarray(0.5 + 0.5 * np.tanh(values / 2))


class Background:
    """Evaluates the moving colour field on the coarse grid."""

    def __init__(self, prompt: str, width: int, height: int) -> None:
        self.columns = max(16, -(-width // CELL))
        self.rows = max(16, -(-height // CELL))
        palette = choose_palette(prompt)
        self.ground = _ycbcr(palette.ground)
        self.colours = np.stack([_ycbcr(colour) for colour in palette.colours])
        random = np.random.default_rng(int.from_bytes(_digest(prompt)[1:9], "big"))
        self.phase = random.uniform(0, 2 * math.pi, 16).astype(np.float32)
        self.tempo = random.uniform(0.85, 1.2)
        motions: tuple[Callable[[Floats, Floats, float], list[Floats]], ...] = (
            self._silk,
            self._curtains,
            self._dunes,
        )
        self.motion = motions[int(random.integers(len(motions)))]
        # Half the picture's extent; one unit is half the shorter side. Long strips are squeezed, not left empty.
        half_width, half_height = (min(side / min(width, height), 2.4) for side in (width, height))
        self.x = (half_width * _middles(self.columns))[None, :]
        self.y = (half_height * _middles(self.rows))[:, None]
        self.shade = self._shade(half_width, half_height)

    def _shade(self, half_width: float, half_height: float) -> Floats:
        """A vignette, darker below where the text stands: factors of luma above black."""
        u, v = self.x / half_width, self.y / half_height
        vignette = 1 - 0.30 * np.clip((u * u + v * v) / 2, 0, 1) ** 1.2
        scrim = 1 - 0.26 * np.clip((v + 0.35) / 1.35, 0, 1)
        return np.asarray(vignette * scrim, np.float32)

    def field(self, seconds: float) -> Floats:
        """Return planes Y, Cb, Cr (3 x rows x columns), 8-bit units, at a moment of the clip."""
        t = seconds * self.tempo
        weights = np.stack(self.motion(self.x, self.y, t))
        cover = 1 - np.exp(-1.6 * weights.sum(axis=0))  # how much of the ground is hidden
        weights *= weights  # the strongest light decides the colour: even mixtures of four are mud
        colour = np.tensordot(self.colours, weights / np.maximum(weights.sum(axis=0), 1e-8), axes=(0, 0))
        planes = self.ground[:, None, None] * (1 - cover) + colour * cover
        planes[0] = BLACK + (planes[0] - BLACK) * self.shade
        return np.asarray(planes, np.float32)

    def _silk(self, x: Floats, y: Floats, t: float) -> list[Floats]:
        """Four soft lights wandering over folded cloth."""
        p = self.phase
        u = x + 0.34 * np.sin(1.9 * y + 0.50 * t + p[0]) + 0.16 * np.sin(3.7 * y - 0.71 * t + p[1])
        v = y + 0.30 * np.sin(1.6 * x - 0.44 * t + p[2]) + 0.14 * np.sin(4.1 * x + 0.63 * t + p[3])
        lights = []
        for k in range(4):
            cx = 1.15 * math.sin(0.33 * t + p[4 + k] + 1.7 * k)
            cy = 0.75 * math.cos(0.41 * t + p[8 + k] + 0.9 * k)
            lights.append(np.exp(-1.7 * ((u - cx) ** 2 + (v - cy) ** 2)))
        fold = 0.72 + 0.28 * np.sin(5.0 * u + 2.6 * v + 0.6 * t)
        return [light * fold for light in lights]

    def _curtains(self, x: Floats, y: Floats, t: float) -> list[Floats]:
        """Four hanging veils of light, as of an aurora."""
        p = self.phase
        veils = []
        for k in range(4):
            hem = (
                0.42
                - 0.30 * k
                + 0.30 * np.sin(1.3 * x + 0.45 * t + p[k])
                + 0.12 * np.sin(3.1 * x - 0.7 * t + p[4 + k])
            )
            above = hem - y
            ray = 0.62 + 0.38 * np.sin(
                (6.5 + 1.7 * k) * x + 1.2 * np.sin(0.9 * x + 0.3 * t) + 0.8 * t + p[8 + k]
            )
            veils.append(1.15 * ray * np.exp(-1.5 * np.maximum(above, 0)) * _step(11 * above))
        return veils

    def _dunes(self, x: Floats, y: Floats, t: float) -> list[Floats]:
        """Four ridges, each in front of the other, sliding at different speeds."""
        p = self.phase
        ridges: list[Floats] = []
        visible: Floats = np.ones(np.broadcast_shapes(x.shape, y.shape), np.float32)
        for k in (3, 2, 1, 0):  # nearest first: it hides those behind
            speed = 0.22 + 0.13 * k
            crest = (
                -0.52
                + 0.36 * k
                + 0.20 * np.sin(1.25 * x + speed * t + p[k])
                + 0.09 * np.sin(2.9 * x - 1.4 * speed * t + p[4 + k])
            )
            depth = y - crest
            body = _step(26 * depth)
            ridges.append(
                np.asarray(visible * body * (2.1 * np.exp(-1.15 * np.maximum(depth, 0)) + 0.12), np.float32)
            )
            visible = visible * (1 - body)
        sky = np.exp(-2.2 * ((x - 0.5 * math.sin(0.21 * t + p[9])) ** 2 + (y + 0.62) ** 2))
        ridges[3] = ridges[3] + visible * sky * 1.1
        return ridges


class Sparkles:
    """Small lights drifting upwards, placed between pixels so that slow movement does not jerk."""

    def __init__(self, prompt: str, width: int, height: int, count: int = 36) -> None:
        random = np.random.default_rng(int.from_bytes(_digest(prompt)[9:17], "big"))
        unit = min(width, height) / 720
        self.width, self.height = width, height
        self.left = random.uniform(0, width, count)
        self.top = random.uniform(0, height, count)
        self.sigma = np.maximum(0.6, unit * random.uniform(0.9, 3.2, count) ** 1.25)
        self.rise = height * random.uniform(0.012, 0.05, count)  # pixels per second
        self.sway = width * random.uniform(0.002, 0.012, count)
        self.beat = random.uniform(0.6, 1.7, count)
        self.phase = random.uniform(0, 2 * math.pi, count)
        self.light = 105 * random.uniform(0.35, 1.0, count)

    def paint(self, luma: NDArray[np.uint8], seconds: float) -> None:
        """Add every light to the luma plane."""
        x = self.left + self.sway * np.sin(self.beat * seconds + self.phase)
        y = (self.top - self.rise * seconds) % self.height
        light = self.light * (0.55 + 0.45 * np.sin(2 * self.beat * seconds + 3 * self.phase))
        for k in range(len(x)):
            reach = int(3 * self.sigma[k]) + 1
            x0, x1 = max(0, int(x[k]) - reach), min(self.width, int(x[k]) + reach + 1)
            y0, y1 = max(0, int(y[k]) - reach), min(self.height, int(y[k]) + reach + 1)
            if x0 >= x1 or y0 >= y1:
                continue
            fall = -0.5 / self.sigma[k] ** 2
            across = np.exp(fall * (np.arange(x0, x1) - x[k]) ** 2)
            down = np.exp(fall * (np.arange(y0, y1) - y[k]) ** 2) * light[k]
            patch = luma[y0:y1, x0:x1]
            patch += np.minimum(np.outer(down, across), WHITE - np.minimum(patch, WHITE)).astype(np.uint8)
