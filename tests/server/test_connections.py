"""Counts of open connections, and the limits on them."""

from typing import Any

from taskwire.server.connections import Connections

ADA, BEN = "203.0.113.1", "203.0.113.2"


def make(limit: int = 100, per_address: int = 50, per_user: int = 10) -> Connections:
    return Connections(limit=limit, per_address=per_address, per_user=per_user)


def test_past_the_limit_in_all_nobody_is_welcome() -> None:
    connections = make(limit=3)
    for number in range(3):
        assert connections.refusal(f"192.0.2.{number}") is None
        connections.enter(f"192.0.2.{number}")
    assert connections.refusal(ADA) == (503, "connections")
    connections.leave("192.0.2.1")
    assert connections.refusal(ADA) is None


def test_one_address_cannot_take_all_places() -> None:
    connections = make(per_address=2)
    connections.enter(ADA)
    connections.enter(ADA)
    assert connections.refusal(ADA) == (429, "connections_per_address")
    assert connections.refusal(BEN) is None
    connections.leave(ADA)
    assert connections.refusal(ADA) is None


def test_asking_and_leaving_leave_nothing_behind() -> None:
    connections = make()
    for number in range(1000):
        address = f"10.0.{number // 256}.{number % 256}"
        connections.refusal(address)
        connections.enter(address)
        connections.leave(address)
    assert (connections.open, connections.accepted) == (0, 1000)
    assert not connections._addresses


def test_who_is_logged_in_where() -> None:
    connections = make(per_user=2)
    one, two, other = (object() for _ in range(3))
    sessions: list[Any] = [one, two, other]
    connections.log_in("ann", sessions[0])
    assert not connections.user_full("ann")
    connections.log_in("ann", sessions[1])
    connections.log_in("ben", sessions[2])
    assert connections.user_full("ann")
    assert not connections.user_full("ben")
    assert not connections.user_full("nobody")
    assert connections.of_user("ann") == [one, two]
    assert sorted(connections.users()) == ["ann", "ben"]
    assert connections.authenticated == 3
    connections.log_out("ann", sessions[0])
    connections.log_out("ann", sessions[0])
    connections.log_out("nobody", sessions[0])
    assert connections.of_user("ann") == [two]
    assert connections.authenticated == 2
    connections.log_out("ann", sessions[1])
    connections.log_out("ben", sessions[2])
    assert (connections.users(), connections.authenticated) == ([], 0)
