"""Channels, the groups of their subscribers that get the same bytes, and subscriptions."""

import asyncio
from collections.abc import Callable

import structlog

from taskwire.core.events import Event, Urgency
from taskwire.hub.outlet import Outlet, Push, Receiver
from taskwire.hub.ports import Framing, View

log = structlog.get_logger(__name__)

GroupKey = tuple[View, Framing, str | None]


class Group:
    """Subscribers of one channel that get the same bytes.

    ``pushes`` are those who are sent to at once, ``held`` those who are not: congested or batching connections.
    ``tag`` is the user of a room's members, who is passed over when the event is told to them elsewhere.
    """

    __slots__ = ("framing", "held", "pushes", "tag", "view")

    def __init__(self, view: View, framing: Framing, tag: str | None) -> None:
        self.view = view
        self.framing = framing
        self.tag = tag
        self.pushes: dict[Subscription, Push] = {}
        self.held: dict[Subscription, Receiver] = {}

    def add(self, sub: "Subscription") -> None:
        outlet = sub.outlet
        if sub.batched and outlet.batcher is not None:
            self.held[sub] = outlet.batcher
        elif outlet.congested:
            self.held[sub] = outlet
        else:
            self.pushes[sub] = outlet.push

    def hold(self, sub: "Subscription", outlet: Outlet) -> None:
        if not sub.batched and self.pushes.pop(sub, None) is not None:
            self.held[sub] = outlet

    def flow(self, sub: "Subscription", outlet: Outlet) -> None:
        if not sub.batched and self.held.pop(sub, None) is not None:
            self.pushes[sub] = outlet.push

    def discard(self, sub: "Subscription") -> None:
        self.pushes.pop(sub, None)
        self.held.pop(sub, None)

    def __bool__(self) -> bool:
        return bool(self.pushes or self.held)


class Subscription:
    """One connection's place in one channel."""

    __slots__ = ("batched", "channel", "group", "outlet")

    def __init__(self, outlet: Outlet, channel: "Channel", group: Group, *, batched: bool) -> None:
        self.outlet = outlet
        self.channel = channel
        self.group = group
        self.batched = batched

    def leave(self) -> None:
        """End the subscription; nothing of the channel is sent to the connection any more."""
        self.channel.remove(self)


class Channel:
    """A topic or a room on this node.

    A topic's channel knows its newest event, which is what a new subscriber gets as the snapshot: from there the
    subscriber is in step with everybody else, so that one revision per channel is enough to keep repeats and late
    news out. ``ready`` is set once the channel listens at the broker and, for a topic, its state has been read.
    """

    __slots__ = ("_on_empty", "count", "groups", "is_topic", "name", "pins", "ready", "state")

    def __init__(self, name: str, on_empty: Callable[["Channel"], None], *, is_topic: bool = False) -> None:
        self.name = name
        self.is_topic = is_topic
        self.groups: dict[GroupKey, Group] = {}
        self.count = 0
        self.pins = 0  # callers between opening and joining
        self.state: Event | None = None
        self.ready: asyncio.Future[None] | None = None
        self._on_empty = on_empty

    def join(
        self, outlet: Outlet, view: View, framing: Framing, *, tag: str | None = None, batched: bool = False
    ) -> Subscription:
        """Subscribe a connection from here on. The caller sends the snapshot (``state``) in the same step.

        A connection that is subscribed already is moved, never doubled.
        """
        present = outlet.subs.get(self.name)
        if present is not None:
            self._detach(present)
        key = (view, framing, tag)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(view, framing, tag)
        sub = Subscription(outlet, self, group, batched=batched)
        group.add(sub)
        outlet.subs[self.name] = sub
        self.count += 1
        return sub

    def remove(self, sub: Subscription) -> None:
        if self._detach(sub):
            self.release()

    def _detach(self, sub: Subscription) -> bool:
        if sub.outlet.subs.get(self.name) is not sub:
            return False
        del sub.outlet.subs[self.name]
        group = sub.group
        group.discard(sub)
        if not group:
            self.groups.pop((group.view, group.framing, group.tag), None)
        self.count -= 1
        return True

    def release(self) -> None:
        """Give the channel up if nobody needs it."""
        if not self.count and not self.pins:
            self._on_empty(self)

    def deliver(self, event: Event) -> int:
        """Fan an event out; the number of deliveries. Events that are not news to the channel are passed over."""
        own = event.topic == self.name
        if own:
            if self.state is not None and event.revision <= self.state.revision:
                return 0
            self.state = event
        deliveries = 0
        made: dict[object, bytes | None] = {}
        for group in list(self.groups.values()):
            if group.tag == event.owner_id and not own:
                continue  # a team's room passes over the owner, whose own room tells them
            frame = self._frame(group, event, made)
            if frame is None:
                continue
            # A copy of each, since a connection that cannot take all is moved from the one to the other.
            held = list(group.held.items()) if group.held else ()
            pushes = list(group.pushes.items())
            size = len(frame)
            for sub, push in pushes:
                try:
                    sent = push(frame)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    continue  # the peer is gone; the transport is about to say so
                if sent != size:
                    sub.outlet.write(frame[sent:])  # the transport keeps it, and calls ``pause``
            for sub, receiver in held:
                receiver.offer(sub, event, frame)
            deliveries += len(pushes) + len(held)
        if own and event.urgency is Urgency.FINAL:
            self._finish()
        return deliveries

    def _frame(self, group: Group, event: Event, made: dict[object, bytes | None]) -> bytes | None:
        """The bytes a group gets of an event, made once per view and framing; None if it shows nothing of it."""
        view, framing = group.view, group.framing
        key = (view, framing)
        if key not in made:
            made[key] = None
            try:
                message = made[view] if view in made else made.setdefault(view, view.encode(event))
                made[key] = None if message is None else framing(message)
            except Exception:  # a fault in one view must not take the other groups' news away
                log.exception("channel.encode_failed", channel=self.name, revision=event.revision)
        return made[key]

    def _finish(self) -> None:
        """The topic has ended and everybody has been told: end the subscriptions."""
        for group in list(self.groups.values()):
            for sub in [*group.pushes, *group.held]:
                self._detach(sub)
        self.release()
