"""Sets a prompt as wrapped, legible text: a glyph mask drawn once and reused for every frame.

Pillow ships one scalable font that knows little more than ASCII. Whatever it lacks is looked for in fonts that
operating systems commonly install; failing those, letters are reduced to their base form (é -> e), and what then
still has no glyph is drawn as an empty box. No prompt makes lettering fail.
"""

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

MAX_CHARACTERS = 600
"""Text beyond this is not set: at the smallest legible size no supported picture holds more."""

EMPTY_PROMPT = "Untitled"

UNKNOWN = -1
"""The "font" of characters that no font here has: drawn as empty boxes."""

NONCHARACTER = "\uffff"
"""Assigned to nothing, so every font draws its missing-glyph box for it."""

FALLBACK_FONTS: tuple[str, ...] = (
    # Pillow finds bare file names in the system's font folders, at any depth.
    "DejaVuSans.ttf",  # Latin, Greek, Cyrillic, Arabic, symbols: Debian, Fedora
    "LiberationSans-Regular.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",  # Chinese, Japanese, Korean: Linux
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "wqy-zenhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",  # the same: macOS
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "msyh.ttc",  # the same: Windows
    "YuGothM.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
    "FreeSans.ttf",  # Indic scripts, Thai, Hebrew
    "NotoEmoji-Regular.ttf",
    "Symbola.ttf",
    "seguiemj.ttf",
)

_MEASURE = 64  # pixels; the size that widths are measured at
_BOX_ADVANCE = 0.58  # width of the box for an unknown character and its margins, in type sizes

# Letters and signs that Unicode does not decompose to ASCII.
_PLAIN = str.maketrans(
    {
        "–": "-", "—": "-", "‐": "-", "‑": "-", "−": "-", "×": "x", "•": "·", "’": "'", "‘": "'", "“": '"', "”": '"',
        "„": '"', "«": '"', "»": '"', "ß": "ss", "Ł": "L", "ł": "l", "Ø": "O", "ø": "o", "Æ": "AE", "æ": "ae",
        "Œ": "OE", "œ": "oe", "Đ": "D", "đ": "d", "ı": "i", "þ": "th", "Þ": "Th", "ð": "d", "→": "->", "←": "<-",
    }
)  # fmt: skip

# East Asian text may be broken between any two characters (Unicode line breaking class ID, roughly).
_BREAK_ANYWHERE = ((0x2E80, 0xA4CF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF),
                   (0x20000, 0x3FFFF))  # fmt: skip

Font = ImageFont.FreeTypeFont


class Run(NamedTuple):
    """Consecutive characters drawn with the same font (an index into the chain, or UNKNOWN)."""

    font: int
    text: str


@dataclass(frozen=True, slots=True)
class Lettering:
    """The prompt set as text: `mask` is an 8-bit coverage image, `size` the type size in pixels."""

    mask: Image.Image
    size: int
    lines: tuple[str, ...]
    truncated: bool


class FontChain:
    """An ordered list of fonts; the first that has a character draws it."""

    def __init__(self, extra: Sequence[str] = ()) -> None:
        """`extra`: paths or file names of fonts to prefer over the shipped one."""
        self._names: tuple[str | None, ...] = (*extra, None, *FALLBACK_FONTS)  # None: the font Pillow ships
        self._default = len(extra)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a process has one chain
    def font(self, index: int, size: int) -> Font | None:
        """Return font `index` at `size` pixels, None if this machine does not have it."""
        name = self._names[index]
        try:
            font = ImageFont.load_default(size=size) if name is None else ImageFont.truetype(name, size=size)
        except (OSError, ValueError):
            return None
        return font if isinstance(font, Font) else None

    def shipped(self, size: int) -> Font:
        """Return the font that comes with Pillow; it covers ASCII."""
        font = self.font(self._default, size)
        assert font is not None, "Pillow was built without FreeType"
        return font

    @functools.lru_cache(maxsize=16384)  # noqa: B019
    def has(self, index: int, character: str) -> bool:
        """Tell whether font `index` has a glyph of its own for the character."""
        font = self.font(index, 24)
        if font is None:
            return False
        return _picture(font, character) != _picture(font, NONCHARACTER)

    def covering(self, text: str) -> int | None:
        """Return the first font that has every character of the text, None if no single one does."""
        letters = {character for character in text if not character.isspace()}
        for index in range(len(self._names)):
            if all(self.has(index, character) for character in letters):
                return index
        return None

    def runs(self, text: str) -> list[Run]:
        """Split text into runs by font: each character is drawn with the first font that has it."""
        runs: list[Run] = []
        for character in text:
            previous = runs[-1].font if runs else self._default
            if character.isspace() or unicodedata.combining(character):
                index = previous if previous != UNKNOWN else self._default  # keeps an accent with its letter
            else:
                index = self._first_with(character)
            if runs and index == previous:
                runs[-1] = Run(index, runs[-1].text + character)
            else:
                runs.append(Run(index, character))
        return runs

    def readable(self, text: str) -> str:
        """Replace characters that no font here has by their plain equivalent where they have one."""
        return "".join(c if self._known(c) else (_plain(c) or c) for c in text)

    def _known(self, character: str) -> bool:
        return (
            character.isspace()
            or unicodedata.combining(character) > 0
            or self._first_with(character) != UNKNOWN
        )

    @functools.lru_cache(maxsize=16384)  # noqa: B019
    def _first_with(self, character: str) -> int:
        indexes = range(len(self._names))
        return next((index for index in indexes if self.has(index, character)), UNKNOWN)


def _picture(font: Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _plain(character: str) -> str:
    replaced = character.translate(_PLAIN)
    if replaced != character:
        return replaced
    decomposed = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    return plain if plain.isascii() else ""


def clean(prompt: str) -> str:
    """Reduce a prompt to one line of drawable characters: no controls, joiners or surrogates; never empty."""
    visible = []
    for character in prompt[: 4 * MAX_CHARACTERS]:
        category = unicodedata.category(character)
        if category == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F:
            continue  # joiners, direction marks, variation selectors: invisible, yet boxes in most fonts
        visible.append(" " if category in ("Cc", "Zl", "Zp") else "\ufffd" if category == "Cs" else character)
    text = " ".join(unicodedata.normalize("NFC", "".join(visible)).split())
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - 1].rstrip() + "…"
    return text or EMPTY_PROMPT


def _breaks_anywhere(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _BREAK_ANYWHERE)


def _pieces(text: str) -> Iterator[str]:
    """Yield the smallest parts a line may be broken between: words with the space before them, single ideographs."""
    word = ""
    for character in text:
        if character == " " or _breaks_anywhere(character):
            if word.strip():
                yield word
                word = ""
            word += character
            if character != " ":
                yield word
                word = ""
        else:
            word += character
    if word:
        yield word


class _Face:
    """What a text is set in: one font (`lead`) if one covers everything, else the first font per character."""

    def __init__(self, chain: FontChain, lead: int | None) -> None:
        self.chain = chain
        self.lead = lead
        self._ems: dict[str, float] = {}

    def runs(self, text: str) -> list[Run]:
        return self.chain.runs(text) if self.lead is None else [Run(self.lead, text)]

    def font(self, index: int, size: int) -> Font:
        font = self.chain.font(index, size)
        assert font is not None  # the chain only names fonts that have glyphs
        return font

    def advance(self, run: Run, size: int) -> float:
        """Return a run's width in pixels."""
        if run.font == UNKNOWN:
            return size * _BOX_ADVANCE * len(run.text)
        return self.font(run.font, size).getlength(run.text)

    def ems(self, text: str) -> float:
        """Return the width of a text in type sizes: measured once, for it grows with the size."""
        if text not in self._ems:
            self._ems[text] = sum(self.advance(run, _MEASURE) for run in self.runs(text)) / _MEASURE
        return self._ems[text]


class _Setter:
    """Wraps and draws text at one type size."""

    def __init__(self, face: _Face, size: int) -> None:
        self.face = face
        self.size = size
        self.leading = round(size * 1.24)
        self.weight = max(0, round(size / 56))  # a thin outline: the shipped font has no bold cut

    def width(self, text: str) -> float:
        return self.face.ems(text) * (self.size + 0.4)  # hinting makes small sizes wider: 3 % at 10 pixels

    def wrap(self, text: str, width: int) -> list[str]:
        lines: list[str] = []
        line, used = "", 0.0
        for piece in _pieces(text):
            advance = self.width(piece)  # summed up: measuring whole lines again and again is quadratic
            if line and used + advance > width:
                lines.append(line)
                line = piece.lstrip()
                used = self.width(line)
            else:
                line, used = line + piece, used + advance
            while len(line) > 1 and used > width:  # one word wider than the picture
                cut = self._fitting(line, width)
                lines.append(line[:cut])
                line = line[cut:]
                used = self.width(line)
        return [*lines, line] if line else lines

    def _fitting(self, text: str, width: int) -> int:
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.width(text[:middle]) <= width else (low, middle - 1)
        return low

    def ellipsize(self, line: str, width: int) -> str:
        while len(line) > 1 and self.width(line + "…") > width:
            line = line[:-1]
        return line.rstrip(" ,.;:") + "…"

    def draw(self, lines: Sequence[str], width: int) -> Image.Image:
        pad = self.weight + max(2, self.size // 8)  # strokes and overhanging letters
        mask = Image.new("L", (width + 2 * pad, self.leading * len(lines) + 2 * pad), 0)
        pen = ImageDraw.Draw(mask)
        for number, line in enumerate(lines):
            x = float(pad)
            baseline = pad + number * self.leading + round(self.size * 0.95)
            for run in self.face.runs(line):
                if run.font == UNKNOWN:
                    self._draw_boxes(pen, x, baseline, len(run.text))
                else:
                    font = self.face.font(run.font, self.size)
                    pen.text(
                        (x, baseline), run.text, font=font, fill=255, anchor="ls", stroke_width=self.weight
                    )
                x += self.face.advance(run, self.size)
        return mask

    def _draw_boxes(self, pen: ImageDraw.ImageDraw, x: float, baseline: int, count: int) -> None:
        advance, stroke = self.size * _BOX_ADVANCE, max(1, self.size // 24)
        for left in (x + number * advance + self.size * 0.06 for number in range(count)):
            corners = (left, baseline - self.size * 0.72, left + self.size * 0.46, baseline)
            pen.rounded_rectangle(corners, radius=self.size * 0.08, outline=170, width=stroke)


def set_text(
    prompt: str, width: int, height: int, chain: FontChain, *, largest: int, smallest: int
) -> Lettering:
    """Set the prompt as large as fits a box of `width` x `height` pixels, `largest` down to `smallest` type size.

    Text that does not fit at the smallest size ends in an ellipsis.
    """
    text = chain.readable(clean(prompt))
    face = _Face(chain, chain.covering(text))
    size = max(largest, smallest)
    while True:
        setter = _Setter(face, size)
        lines = setter.wrap(text, width)
        room = max(1, height // setter.leading)
        if len(lines) <= room or size <= smallest:
            break
        size = max(smallest, min(size - 1, round(size * 0.9)))
    truncated = len(lines) > room
    if truncated:
        lines = [*lines[: room - 1], setter.ellipsize(lines[room - 1], width)]
    return Lettering(setter.draw(lines, width), size, tuple(lines), truncated)
