"""Lettering: prompts of every kind become text that fits its box."""

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskwire.providers.render import lettering
from taskwire.providers.render.lettering import UNKNOWN, FontChain, Lettering, clean, set_text

LONG = "The history of the universe in sixty seconds. " * 40


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> FontChain:
    """The fonts of a machine that has none but Pillow's own."""
    monkeypatch.setattr(lettering, "FALLBACK_FONTS", ())
    return FontChain()


def set_small(prompt: str, chain: FontChain | None = None) -> Lettering:
    return set_text(prompt, 300, 120, chain or FontChain(), largest=40, smallest=10)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("A  red\n\tfox", "A red fox"),
        ("", "Untitled"),
        (" \u200b\n", "Untitled"),
        ("a\x00b\x1b[31m", "a b [31m"),
        ("\ud800x", "\ufffdx"),
        ("snow\ufe0f\u200d", "snow"),
        ("e\u0301", "é"),
    ],
)
def test_prompts_are_reduced_to_one_line_of_drawable_characters(prompt: str, text: str) -> None:
    assert clean(prompt) == text


def test_a_short_prompt_is_set_large_and_a_long_one_smaller() -> None:
    short, longer = set_small("Cats"), set_small("A red fox runs through fresh snow at sunrise, slowly")
    assert short.lines == ("Cats",)
    assert short.size == 40
    assert longer.size < 40
    assert not longer.truncated
    assert (
        " ".join(line.strip() for line in longer.lines)
        == "A red fox runs through fresh snow at sunrise, slowly"
    )


def test_what_does_not_fit_at_the_smallest_size_ends_in_an_ellipsis() -> None:
    setting = set_text(LONG, 300, 60, FontChain(), largest=40, smallest=10)
    assert setting.size == 10
    assert len(setting.lines) == 60 // round(1.24 * 10)
    assert setting.truncated
    assert setting.lines[-1].endswith("…")


def test_a_word_wider_than_the_box_is_broken() -> None:
    setting = set_small("x" * 200)
    assert len(setting.lines) > 1
    assert "".join(setting.lines) == "x" * 200


def test_east_asian_text_is_broken_between_characters() -> None:
    text = "一只狐狸在雪地里奔跑" * 4
    setting = set_small(text)
    assert len(setting.lines) > 1
    assert "".join(setting.lines) == text


@pytest.mark.parametrize("prompt", ["Cats", LONG, "x" * 300, "一只狐狸" * 30, "🦊🦊 fox", "Grüße — “quoted”"])
def test_no_ink_touches_the_sides_of_the_mask(prompt: str) -> None:
    mask = set_small(prompt).mask
    left, _, right, _ = mask.getbbox() or (0, 0, 0, 0)
    assert 0 < left < right < mask.width


def test_without_other_fonts_letters_lose_their_accents_instead_of_vanishing(bare: FontChain) -> None:
    assert bare.readable("Café — Łódź, naïve Straße × 2") == "Cafe - Lodz, naive Strasse x 2"
    assert set_small("Zażółć", bare).lines == ("Zazolc",)


def test_without_other_fonts_unknown_characters_are_boxes(bare: FontChain) -> None:
    assert [run.font for run in bare.runs("狐狸 fox")] == [UNKNOWN, 0]
    boxes = set_small("狐狸狐狸", bare).mask.getbbox()
    assert boxes is not None
    assert boxes[2] - boxes[0] > 60


def test_a_font_given_by_the_operator_comes_first(bare: FontChain) -> None:
    chain = FontChain(["no-such-font-anywhere.ttf"])
    assert chain.font(0, 20) is None
    assert set_small("still works", chain).lines == ("still works",)


@settings(deadline=None)
@given(
    st.text(st.characters(), max_size=80) | st.text(st.characters(categories=["Cs", "Cn", "Co", "Mn", "So"]))
)
@example("👨‍👩‍👧‍👦" * 30)
@example("مرحبا بالعالم")
@example("नमस्ते दुनिया")
@example("\u0301" * 50)
@example("\ud83d")
def test_any_prompt_can_be_set(prompt: str) -> None:
    setting = set_small(prompt)
    assert setting.lines
    assert setting.mask.height <= 120 + 2 * (40 // 8 + 2)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for line in setting.lines for c in line)
