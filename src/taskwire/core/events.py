"""What the hub carries: one committed change of one thing, and the channels it concerns."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final


class Urgency(IntEnum):
    """What may happen to an event on a connection that cannot keep up (docs/concepts.md)."""

    PROGRESS = 0  # a newer one of the same thing replaces it
    STATE = 1  # never dropped
    FINAL = 2  # never dropped, and ends the subscriptions to the thing


def task_channel(task_id: str) -> str:
    """The channel of those who subscribed to one task."""
    return "task:" + task_id


def user_channel(user_id: str) -> str:
    """The room of one user: every authenticated connection of theirs."""
    return "user:" + user_id


def team_channel(team_id: str) -> str:
    """The room of a team: every authenticated connection of its members."""
    return "team:" + team_id


@dataclass(frozen=True, slots=True)
class Event:
    """A committed change.

    ``topic`` is the changed thing's own channel; events of one topic carry strictly increasing revisions. ``entity`` is
    the whole new state (a ``Task``, say), so that an event is also a snapshot. ``rooms`` are further channels that are
    told; ``owner_id`` lets a team room pass over the owner, who hears of it in their own room.
    """

    topic: str
    revision: int
    urgency: Urgency
    entity: Any
    owner_id: str
    rooms: tuple[str, ...] = ()
    committed_at: float = 0.0  # monotonic seconds of this process, for the commit-to-write metric


CONTROL_RECHECK: Final = "recheck-access"
"""Control word to a user's connections: rights or memberships changed; load them anew."""
