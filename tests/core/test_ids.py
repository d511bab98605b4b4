"""Ids: unguessable, sorted by time, and of one harmless shape."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskwire.core.ids import is_id, new_id

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def decode(id: str) -> int:
    number = 0
    for letter in id.partition("_")[2]:
        number = number * 32 + ALPHABET.index(letter)
    return number


@given(st.integers(0, (1 << 48) - 1))
def test_an_id_holds_its_time_and_82_random_bits(now: int) -> None:
    id = new_id("video", now)
    assert re.fullmatch(rf"video_[{ALPHABET}]{{26}}", id)
    assert decode(id) >> 82 == now
    assert is_id(id)


@given(st.lists(st.integers(0, (1 << 48) - 1), min_size=2, unique=True))
def test_later_ids_sort_later(times: list[int]) -> None:
    ids = {now: new_id("video", now) for now in times}
    assert sorted(ids.values()) == [ids[now] for now in sorted(times)]


def test_ids_of_one_moment_differ_in_every_random_bit() -> None:
    numbers = [decode(new_id("video", 1)) & ((1 << 82) - 1) for _ in range(300)]
    assert len(set(numbers)) == 300
    ones = [sum(number >> bit & 1 for number in numbers) for bit in range(82)]
    assert min(ones) > 0
    assert max(ones) < 300


@pytest.mark.parametrize(
    "value", ["video_1", "a", "9", "A.b:c-d_e", "0" * 128, "video_06gz9k2c5m8q4w7xj3t1nafrbe"]
)
def test_ids(value: str) -> None:
    assert is_id(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "_a",
        "-a",
        ".",
        "0" * 129,
        "a b",
        "a\n",
        "a\x00",
        "é",
        "a/b",
        "../a",
        "a'",
        1,
        None,
        True,
        b"a",
        ["a"],
    ],
)
def test_what_is_no_id(value: object) -> None:
    assert not is_id(value)
