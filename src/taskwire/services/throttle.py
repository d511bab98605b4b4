"""Limits on how often something may happen: failures per key, messages per connection. Time is passed in."""

from collections import OrderedDict


class Throttle:
    """Counts failures per key. ``limit`` of them within ``window`` seconds of the first block the key until its end.

    Holds at most ``max_keys`` keys; past that the oldest ones are forgotten first.
    """

    __slots__ = ("_keys", "_limit", "_max_keys", "_window")

    def __init__(self, limit: int, window: float, *, max_keys: int = 20_000) -> None:
        self._limit = limit
        self._window = window
        self._max_keys = max_keys
        self._keys: OrderedDict[str, tuple[float, int]] = (
            OrderedDict()
        )  # by the start of the window, oldest first

    def __len__(self) -> int:
        return len(self._keys)

    def retry_after(self, key: str, now: float) -> float:
        """Seconds until ``key`` may try again; 0: it may now."""
        start, count = self._keys.get(key, (now, 0))
        return max(0.0, self._window - (now - start)) if count >= self._limit else 0.0

    def hit(self, key: str, now: float) -> None:
        """Count one failure. Count an attempt before its outcome is known, and ``forgive`` it if it succeeds:
        otherwise many attempts at once would all pass before the first failure is counted."""
        start, count = self._keys.get(key, (now, 0))
        if now - start >= self._window:
            del self._keys[key]
            start, count = now, 0
        self._keys[key] = start, count + 1
        while len(self._keys) > self._max_keys:
            self._keys.popitem(last=False)

    def forgive(self, key: str) -> None:
        """Take one failure back."""
        start, count = self._keys.get(key, (0.0, 0))
        if count > 1:
            self._keys[key] = start, count - 1
        else:
            self._keys.pop(key, None)

    def reset(self, key: str) -> None:
        """Forget every failure of ``key``."""
        self._keys.pop(key, None)


class TokenBucket:
    """``burst`` at once, ``rate`` per second in the long run. 56 bytes and one float: there is one per connection.

    Kept as the time at which the bucket will be full again (the generic cell rate algorithm), so that a bucket needs
    one number and no refilling.
    """

    __slots__ = ("_full_at", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._full_at = float("-inf")

    def take(self, now: float) -> bool:
        """Take one token; False when there is none, which costs nothing. ``now`` in seconds of any steady clock."""
        full_at = max(self._full_at, now) + 1 / self.rate
        # Half a millionth of a token is lost to rounding, over hours of any steady clock, at the most.
        if (full_at - now) * self.rate > self.burst + 1e-6:
            return False
        self._full_at = full_at
        return True
