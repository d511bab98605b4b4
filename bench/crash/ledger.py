"""Everything that was seen and everything that was acknowledged, and the list of promises found broken."""

from dataclasses import dataclass, field
from typing import Any, Final

MOST_KEPT: Final = 50

FINAL_TYPES: Final = {"taskCompleted": "COMPLETED", "taskFailed": "FAILED"}
"""Final messages of the *tasks* contract and the stored status they stand for (a cancelled task is ``taskFailed``)."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A task as one message or one REST answer shows it. ``status`` is the stored one, ``progress`` is 0–100."""

    revision: int
    attempt: int
    status: str
    progress: float
    error: str = ""

    @property
    def final(self) -> bool:
        return self.status in ("COMPLETED", "FAILED", "CANCELLED")


def pushed(message: dict[str, Any]) -> Sight:
    """The sight of a ``taskProgress``, ``taskCompleted`` or ``taskFailed`` message."""
    payload = message["payload"]
    code = (payload.get("error") or {}).get("code", "")
    status = FINAL_TYPES.get(message["type"]) or payload["status"]
    if code == "CANCELLED":
        status = "CANCELLED"
    return Sight(payload["revision"], payload.get("attempt", 1), status, payload["progress"], code)


def stored(task: dict[str, Any]) -> Sight:
    """The sight of a task in a REST answer."""
    code = (task.get("error") or {}).get("code", "")
    return Sight(task["revision"], task["attempt"], task["status"], task["progress"], code)


@dataclass(slots=True)
class Ledger:
    """Shared by subscribers and producers of one check."""

    violations: list[str] = field(default_factory=list)
    more_violations: int = 0
    messages: int = 0
    newest: dict[str, Sight] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    _sights: dict[tuple[str, int], Sight] = field(default_factory=dict)

    def violated(self, what: str) -> None:
        """Note a broken promise; the first ones are kept in words, the rest only counted."""
        if len(self.violations) < MOST_KEPT:
            self.violations.append(what)
        else:
            self.more_violations += 1

    def saw(self, who: str, task: str, sight: Sight) -> None:
        """A subscriber got a message. One revision is one state, whoever sees it and whenever."""
        self.messages += 1
        known = self._sights.setdefault((task, sight.revision), sight)
        if known != sight:
            self.violated(f"{who}: {task} revision {sight.revision} was {known} and is now {sight}")
        if task not in self.newest or sight.revision > self.newest[task].revision:
            self.newest[task] = sight

    def acknowledge(self, task: str, revision: int) -> None:
        """A producer's report was answered: at least this revision must survive whatever comes."""
        self.acknowledged[task] = max(revision, self.acknowledged.get(task, 0))

    def compare(self, when: str, task: str, truth: Sight, seen: Sight | None, acknowledged: int) -> None:
        """What the database says against what had been seen and acknowledged before."""
        if truth.revision < acknowledged:
            self.violated(
                f"{when}: {task} is stored at {truth.revision}, but {acknowledged} was acknowledged"
            )
        if seen is None:
            return
        if truth.revision < seen.revision:
            self.violated(f"{when}: {task} is stored at {truth.revision}, but {seen.revision} was seen")
        elif truth.revision == seen.revision and truth != seen:
            self.violated(f"{when}: {task} was seen as {seen}, but is stored as {truth}")
        if seen.final and truth != seen:
            self.violated(f"{when}: the end of {task} was seen as {seen}, but is stored as {truth}")
