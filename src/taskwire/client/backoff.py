"""How long to wait before the next try: exponential, with full jitter, so that clients do not come back in step."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """Waits drawn evenly from 0 to ``base``·2ⁿ seconds, at most ``cap``; ``n`` counts the failures in a row."""

    base: float = 0.5
    cap: float = 30.0
    draw: Callable[[float, float], float] = random.uniform
    failures: int = field(default=0, init=False)

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        ceiling = min(self.cap, self.base * 2 ** min(self.failures, 60))
        self.failures += 1
        return self.draw(0, ceiling)

    def reset(self) -> None:
        """It worked: begin anew."""
        self.failures = 0
