"""Who is asking, and what they may see."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: a person with a JWT, or a producer with an API key acting for its owner.

    ``teams`` are the ids of the teams the user belongs to, ``expires_at`` is in ms since 1970 (None: does not expire).
    """

    user_id: str
    username: str
    is_admin: bool = False
    teams: frozenset[str] = frozenset()
    expires_at: int | None = None
    key_id: str | None = None
    scopes: frozenset[str] = frozenset({"read", "write"})

    def may_see(self, owner_id: str, team_id: str | None) -> bool:
        """Owners, members of the team and admins see a thing; nobody else learns that it exists."""
        return self.user_id == owner_id or self.is_admin or (team_id is not None and team_id in self.teams)
