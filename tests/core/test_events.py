"""Events and the names of channels."""

from taskwire.core.events import Urgency, task_channel, team_channel, user_channel


def test_channels_of_one_id_differ_by_kind() -> None:
    assert [task_channel("x1"), user_channel("x1"), team_channel("x1")] == ["task:x1", "user:x1", "team:x1"]


def test_urgencies_are_ordered_by_how_much_they_matter() -> None:
    assert Urgency.PROGRESS < Urgency.STATE < Urgency.FINAL
