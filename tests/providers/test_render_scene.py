"""Scenes: deterministic, moving, with the prompt readable in the picture."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskwire.providers.render.background import PALETTES, choose_palette
from taskwire.providers.render.scene import Scene

PROMPT = "A red fox runs through fresh snow"


def planes(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The frame's pixels: rows of luma, then those of chroma."""
    return np.asarray(frame.to_ndarray(), np.uint8)


def scene(prompt: str = PROMPT, width: int = 320, height: int = 180, frames: int = 48) -> Scene:
    return Scene(prompt, width, height, fps=24, frames=frames)


def test_the_same_prompt_gives_the_same_frames_in_any_order() -> None:
    first, second = scene(), scene()
    second.frame(40)
    assert np.array_equal(planes(first.frame(7)), planes(second.frame(7)))


def test_different_prompts_give_different_pictures() -> None:
    assert len({planes(scene(prompt).frame(0))[:40].tobytes() for prompt in ("a", "b", "c", "d", "e")}) == 5


@pytest.mark.parametrize("prompt", [f"motion {number}" for number in range(12)])
def test_the_background_moves_and_has_colour(prompt: str) -> None:
    clip = scene(prompt)
    first, later = planes(clip.frame(0)).astype(int), planes(clip.frame(47)).astype(int)
    assert np.abs(first - later)[:90].mean() > 1
    assert first[:90].std() > 4  # not one flat colour
    chroma = first[180:]
    assert np.abs(chroma - 128).max() > 20


def test_motion_is_smooth() -> None:
    clip = scene()
    a, b = planes(clip.frame(10)).astype(int), planes(clip.frame(11)).astype(int)
    assert np.abs(a - b)[:170].mean() < 2


def test_the_prompt_is_there_in_white_on_a_darker_ground() -> None:
    luma = planes(scene("MMMMMMMM").frame(0))[:180]
    text = luma[90:160]
    assert (text > 220).mean() > 0.1
    assert np.median(text[text < 180]) < 110
    other = planes(scene("MMMMMMMM ").frame(0))[:180]
    assert not np.array_equal(luma, other)  # the background follows the exact prompt, the text does not


def test_the_time_bar_grows_to_full_width() -> None:
    clip = scene()
    widths = [int((planes(clip.frame(index))[179] >= 235).sum()) for index in (0, 23, 47)]
    assert widths == [7, 160, 320]


def test_frames_are_limited_range_bt709() -> None:
    frame = scene().frame(3)
    assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 320, 180)
    assert (frame.colorspace, frame.color_range) == (1, 1)
    luma = planes(frame)[:180]
    assert luma.min() >= 15
    assert luma.max() <= 236


@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (1920, 64), (64, 1920), (1080, 1920), (130, 98), (66, 70)]
)
def test_every_size(width: int, height: int) -> None:
    frame = scene("Any size will do, also with quite some text in it", width, height).frame(20)
    assert planes(frame).shape == (height * 3 // 2, width)


@pytest.mark.parametrize(
    ("prompt", "palette"),
    [
        ("Sunset over the bay", "dusk"),
        ("a deep OCEAN, waves", "ocean"),
        ("Neon city!", "neon"),
        ("snow", "frost"),
    ],
)
def test_words_of_the_prompt_choose_the_colours(prompt: str, palette: str) -> None:
    assert choose_palette(prompt).name == palette


def test_other_prompts_are_spread_over_the_palettes() -> None:
    chosen = {choose_palette(f"prompt {number}").name for number in range(300)}
    assert chosen == {palette.name for palette in PALETTES}


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(32, 80), st.integers(32, 80), st.integers(0, 5))
def test_any_prompt_can_be_painted(prompt: str, half_width: int, half_height: int, index: int) -> None:
    clip = Scene(prompt, 2 * half_width, 2 * half_height, fps=1, frames=6)
    assert clip.frame(index).width == 2 * half_width
