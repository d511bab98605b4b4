"""Checks Taskwire's promises under ``kill -9``: see ``check``.

outcome = asyncio.run(check(CrashPlan(tasks=20, subscribers=40, kills=2, seed=7)))
assert not outcome.violations, outcome
"""

from bench.crash.check import CrashOutcome, CrashPlan, check

__all__ = ["CrashOutcome", "CrashPlan", "check"]
