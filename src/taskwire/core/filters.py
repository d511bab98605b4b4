"""What lists of things are narrowed by."""

from collections.abc import Sequence
from dataclasses import dataclass

from taskwire.core.tasks import TaskStatus


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks a list shows. ``owner_ids``/``team_ids`` None together: everybody's (admins)."""

    owner_ids: Sequence[str] | None = None
    team_ids: Sequence[str] | None = None
    statuses: Sequence[TaskStatus] = ()
    providers: Sequence[str] = ()
    text: str = ""
    created_from: int | None = None
    created_to: int | None = None
    updated_from: int | None = None
