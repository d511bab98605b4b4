"""The open connections of this node: counts for the limits, and who is logged in where."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskwire.server.session import ClientSession


class Connections:
    """Counts connections in all, per address and per user, and refusals by reason."""

    def __init__(self, *, limit: int, per_address: int, per_user: int) -> None:
        self._limit = limit
        self._per_address = per_address
        self._per_user = per_user
        self._addresses: Counter[str] = Counter()
        self._users: dict[str, dict[ClientSession, None]] = {}
        self.open = 0
        self.accepted = 0
        self.authenticated = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()

    def refusal(self, address: str) -> tuple[int, str] | None:
        """Why one more connection of ``address`` is refused, as (HTTP status, reason); None if it is welcome."""
        if self.open >= self._limit:
            return 503, "connections"
        if self._addresses[address] >= self._per_address:
            return 429, "connections_per_address"
        return None

    def enter(self, address: str) -> None:
        self.open += 1
        self.accepted += 1
        self._addresses[address] += 1

    def leave(self, address: str) -> None:
        self.open -= 1
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def user_full(self, user_id: str) -> bool:
        return len(self._users.get(user_id, ())) >= self._per_user

    def log_in(self, user_id: str, session: "ClientSession") -> None:
        self._users.setdefault(user_id, {})[session] = None
        self.authenticated += 1

    def log_out(self, user_id: str, session: "ClientSession") -> None:
        sessions = self._users.get(user_id)
        if sessions is not None and session in sessions:
            del sessions[session]
            self.authenticated -= 1
            if not sessions:
                del self._users[user_id]

    def users(self) -> list[str]:
        """The ids of the users that are logged in."""
        return list(self._users)

    def of_user(self, user_id: str) -> list["ClientSession"]:
        """The logged-in sessions of one user."""
        return list(self._users.get(user_id, ()))
