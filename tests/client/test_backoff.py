"""Waits grow, are bounded, and are drawn from the whole range."""

from hypothesis import given
from hypothesis import strategies as st

from taskwire.client.backoff import Backoff


@given(st.integers(0, 5000), st.floats(0.01, 10), st.floats(0.01, 100))
def test_between_nothing_and_the_cap(failures: int, base: float, cap: float) -> None:
    backoff = Backoff(base, cap)
    backoff.failures = failures
    assert 0 <= backoff.next() <= cap


def test_ceilings_double_until_the_cap_and_begin_anew() -> None:
    ceilings: list[float] = []

    def draw(low: float, high: float) -> float:
        assert low == 0
        ceilings.append(high)
        return high

    backoff = Backoff(1, 10, draw)
    assert [backoff.next() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.reset()
    assert backoff.next() == 1


def test_full_jitter() -> None:
    """Many clients that fail together do not come back together."""
    waits = sorted(Backoff(8, 8).next() for _ in range(1000))
    assert waits[100] < 2
    assert waits[-100] > 6
