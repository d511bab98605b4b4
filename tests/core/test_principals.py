"""Who may see what."""

import pytest

from taskwire.core.principals import Principal

MEMBER = Principal("ann", "Ann", teams=frozenset({"team_a", "team_b"}))


@pytest.mark.parametrize(
    ("principal", "owner", "team", "may"),
    [
        (MEMBER, "ann", None, True),
        (MEMBER, "ann", "team_z", True),
        (MEMBER, "bob", "team_b", True),
        (MEMBER, "bob", None, False),
        (MEMBER, "bob", "team_z", False),
        (Principal("ann", "Ann"), "bob", "team_a", False),
        (Principal("root", "Root", is_admin=True), "bob", None, True),
        (Principal("root", "Root", is_admin=True), "bob", "team_a", True),
    ],
)
def test_owners_members_and_admins_see_a_thing(
    principal: Principal, owner: str, team: str | None, may: bool
) -> None:
    assert principal.may_see(owner, team) is may
