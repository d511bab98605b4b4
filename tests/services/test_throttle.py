"""Limits on failures per key and on messages per connection."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from taskwire.services.throttle import Throttle, TokenBucket


def test_a_key_is_blocked_after_the_limit_until_the_window_ends() -> None:
    throttle = Throttle(3, 60)
    for now in (100.0, 110.0, 120.0):
        assert throttle.retry_after("a", now) == 0
        throttle.hit("a", now)
    assert throttle.retry_after("a", 120.0) == 40
    assert throttle.retry_after("a", 159.5) == 0.5
    assert throttle.retry_after("a", 160.0) == 0
    throttle.hit("a", 160.0)
    assert throttle.retry_after("a", 160.0) == 0


def test_keys_do_not_share_a_count() -> None:
    throttle = Throttle(1, 60)
    throttle.hit("a", 0.0)
    assert throttle.retry_after("a", 0.0) == 60
    assert throttle.retry_after("b", 0.0) == 0


def test_failures_are_taken_back() -> None:
    throttle = Throttle(2, 60)
    throttle.hit("a", 0.0)
    throttle.hit("a", 1.0)
    throttle.forgive("a")
    assert throttle.retry_after("a", 1.0) == 0
    throttle.hit("a", 2.0)
    assert throttle.retry_after("a", 2.0) == 58  # the window is still the first one
    throttle.forgive("a")
    throttle.forgive("a")
    throttle.forgive("a")
    assert len(throttle) == 0


def test_failures_are_forgotten_on_demand() -> None:
    throttle = Throttle(1, 60)
    throttle.hit("a", 0.0)
    throttle.reset("a")
    throttle.reset("b")
    assert throttle.retry_after("a", 0.0) == 0


def test_the_number_of_keys_is_bounded_and_the_newest_stay() -> None:
    throttle = Throttle(1, 60, max_keys=100)
    for number in range(1000):
        throttle.hit(str(number), float(number) / 100)
    assert len(throttle) == 100
    assert throttle.retry_after("999", 10.0) > 0
    assert throttle.retry_after("899", 10.0) == 0


def test_a_key_that_goes_on_failing_counts_as_new_in_each_window() -> None:
    throttle = Throttle(2, 10, max_keys=2)
    throttle.hit("old", 0.0)
    throttle.hit("other", 5.0)
    throttle.hit("old", 12.0)  # a new window: newer than the other's
    throttle.hit("third", 13.0)
    throttle.hit("old", 13.0)
    assert throttle.retry_after("old", 13.0) == 9


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 5), st.floats(1, 20))
def test_no_window_sees_more_than_the_limit(steps: list[float], limit: int, window: float) -> None:
    throttle, now, passed, start = Throttle(limit, window), 1000.0, 0, None
    for step in steps:
        now += step
        if start is None or now - start >= window:
            start, passed = now, 0
        if throttle.retry_after("a", now) == 0:
            throttle.hit("a", now)
            passed += 1
        assert passed <= limit
        assert 0 <= throttle.retry_after("a", now) <= window


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(10, 5)
    assert [bucket.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not bucket.take(100.09)
    assert bucket.take(100.1)
    assert not bucket.take(100.15)
    assert [bucket.take(200.0) for _ in range(6)] == [True] * 5 + [False]


def test_a_refused_take_costs_nothing() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.take(0.0)
    for _ in range(1000):
        assert not bucket.take(0.5)
    assert bucket.take(1.0)


def test_a_bucket_starts_full_whatever_the_clock_says() -> None:
    for now in (-1e6, 0.0, 1e9):
        assert [TokenBucket(50, 200).take(now) for _ in range(3)] == [True] * 3


@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=200),
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.floats(0, 1e7),
)
def test_a_bucket_never_gives_more_than_burst_and_rate(
    steps: list[float], rate: float, burst: int, start: float
) -> None:
    bucket, now, given_out = TokenBucket(rate, burst), start, 0
    for step in steps:
        now += step
        given_out += bucket.take(now)
        assert given_out <= burst + (now - start) * rate + 0.01


def test_a_bucket_is_small() -> None:
    bucket = TokenBucket(50.0, 200.0)
    assert sys.getsizeof(bucket) <= 64
    assert not hasattr(bucket, "__dict__")
