"""Snapshot, then stream, under every interleaving: random runs of subscribers, news, slow readings and full transports.

Each run is checked against what was committed: a subscriber's history is the snapshot, then strictly increasing
revisions, with every state change after the snapshot exactly once and one ending, after which there is no subscription.
"""

import asyncio
from dataclasses import dataclass, field

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from taskwire.core.events import Event, Urgency
from taskwire.hub.hub import Hub
from tests.support.hub import Connection, ManualBroker, PlainView, Shown, SocketConnection, follow
from tests.support.tasks import make_event

PROGRESS, STATE, FINAL = Urgency.PROGRESS, Urgency.STATE, Urgency.FINAL
CONNECTIONS, TOPICS = 4, 2

number = st.integers(0, CONNECTIONS - 1)
topic = st.integers(0, TOPICS - 1)
steps = st.one_of(
    st.tuples(st.just("follow"), number, topic),
    st.tuples(st.just("follow"), number, topic),
    st.tuples(st.just("leave"), number, topic),
    st.tuples(st.just("give up"), number, topic),
    st.tuples(st.just("hang up"), number, topic),
    st.tuples(st.just("commit"), st.sampled_from([0, 0, 0, 0, 1, 1, 2]), topic),
    st.tuples(st.just("commit"), st.sampled_from([0, 0, 0, 0, 1, 1, 2]), topic),
    st.tuples(st.just("publish"), st.just(0), topic),
    st.tuples(st.just("publish"), st.just(0), topic),
    st.tuples(st.just("answer"), st.integers(0, 3), topic),
    st.tuples(st.just("room"), number, st.integers(0, 3)),
    st.tuples(st.just("turns"), st.integers(1, 4), topic),
)
Step = tuple[str, int, int]
runs = st.lists(steps, max_size=10) | st.lists(steps, min_size=40, max_size=120)


@dataclass
class Run:
    """A hub between a store that answers when the run says so, and connections that are full when it says so."""

    loses: bool
    events: dict[str, list[Event]] = field(default_factory=dict)
    unpublished: dict[str, list[Event]] = field(default_factory=dict)
    queries: list[asyncio.Event] = field(default_factory=list)
    opening: dict[tuple[int, str], "asyncio.Task[object]"] = field(default_factory=dict)
    calm: bool = False

    async def load(self, name: str) -> Event | None:
        found = self.events[name][-1]  # what the query sees, however long its answer takes
        if not self.calm:
            gate = asyncio.Event()
            self.queries.append(gate)
            await gate.wait()
        return found

    def start(self) -> None:
        self.broker = ManualBroker()
        self.hub = Hub(self.broker, self.load)
        self.view = PlainView()
        self.connections = [self.connect(index) for index in range(CONNECTIONS)]
        for index in range(TOPICS):
            name = f"task:video_{index}"
            self.events[name] = [make_event(name, 1, STATE)]
            self.unpublished[name] = []

    @staticmethod
    def connect(index: int) -> Connection:
        """Every other one is written to through a socket, frame by frame or in parts."""
        return SocketConnection(room=1000) if index % 2 else Connection()

    def commit(self, name: str, urgency: Urgency) -> None:
        last = self.events[name][-1]
        if last.urgency is FINAL:
            urgency = STATE  # a retry
        event = make_event(name, last.revision + 1, urgency)
        self.events[name].append(event)
        self.unpublished[name].append(event)

    def publish(self, name: str) -> None:
        events, self.unpublished[name] = self.unpublished[name], []
        self.broker.publish(events)

    async def follow(self, index: int, name: str) -> None:
        connection = self.connections[index]
        await follow(self.hub, connection, name, self.view)

    async def step(self, step: Step) -> None:
        kind, first, second = step
        name = f"task:video_{second % TOPICS}"
        match kind:
            case "commit":
                self.commit(name, Urgency(first))
            case "publish":
                if self.loses and len(self.unpublished[name]) > 2:
                    self.unpublished[name] = []
                    self.broker.lost()
                self.publish(name)
            case "answer" if self.queries:
                self.queries.pop(first % len(self.queries)).set()
            case "turns":
                for _ in range(first):
                    await asyncio.sleep(0)
            case "room":
                self.connections[first].drain(room=second if first % 2 == 0 else 15 * second)
            case _:
                self.people(kind, first, name)

    def people(self, kind: str, index: int, name: str) -> None:
        connection, opening = self.connections[index], self.opening.get((index, name))
        match kind:
            case "follow" if opening is None or opening.done():
                self.opening[index, name] = asyncio.get_running_loop().create_task(self.follow(index, name))
            case "give up" if opening is not None:
                opening.cancel()
            case "leave":
                sub = connection.outlet.subs.get(name)
                if sub is not None and sub.channel.state is not None:
                    told = sub.channel.state.revision
                    sub.leave()
                    connection.outlet.send(connection.framing(Shown("left", name, told, STATE).frame))
            case "hang up":
                for (who, _), task in self.opening.items():
                    if who == index:
                        task.cancel()
                connection.outlet.close()
                self.connections[index] = self.connect(index)
                self.check(connection, closed=True)

    async def settle(self) -> None:
        """No more surprises: every query answers, every transport has room, everything ends."""
        self.calm = True
        for name in self.events:
            self.publish(name)
        for _ in range(100):
            for gate in self.queries:
                gate.set()
            await asyncio.sleep(0)
        for name in self.events:
            if self.events[name][-1].urgency is not FINAL:
                self.commit(name, FINAL)
            self.publish(name)
        for connection in self.connections:
            connection.drain()
        await asyncio.gather(*self.opening.values(), return_exceptions=True)

    def check(self, connection: Connection, *, closed: bool) -> None:
        for name, events in self.events.items():
            histories: list[list[Shown]] = []
            for shown in connection.shown:
                if shown.topic != name:
                    continue
                if shown.kind == "snapshot":
                    histories.append([shown])
                else:
                    assert histories, "news before any snapshot"
                    histories[-1].append(shown)
            for index, history in enumerate(histories):
                following = histories[index + 1][0].revision if index + 1 < len(histories) else None
                self.check_history(events, history, following, closed=closed)

    def check_history(
        self, events: list[Event], history: list[Shown], following: int | None, *, closed: bool
    ) -> None:
        left = history[-1].kind == "left"
        seen = history[:-1] if left else history
        assert all(shown.kind == "event" for shown in seen[1:]), "something after the end of the subscription"
        revisions = [shown.revision for shown in seen]
        assert revisions == sorted(set(revisions)), "a repeat, or a step back"
        endings = [index for index, shown in enumerate(seen) if shown.urgency is FINAL]
        assert endings in ([], [len(seen) - 1]), "something after the ending"
        if not self.loses:
            known = history[-1].revision if left else revisions[-1]
            until = following if following is not None and not left and not endings else known
            wanted = {event.revision for event in events if event.urgency is not PROGRESS}
            wanted &= set(range(revisions[0] + 1, until + 1))
            # The last one before the next snapshot may have come as that.
            assert wanted - {following} <= set(revisions), "a state change is missing"
        if not (left or closed or endings or following is not None):
            raise AssertionError("a subscription without an end")


@settings(max_examples=250, phases=set(Phase) - {Phase.explain})
@given(runs)
def test_every_history_is_complete(run: list[Step]) -> None:
    asyncio.run(play(run, loses=False))


@settings(max_examples=100, phases=set(Phase) - {Phase.explain})
@given(runs)
def test_every_history_ends_though_news_is_lost(run: list[Step]) -> None:
    asyncio.run(play(run, loses=True))


async def play(told: list[Step], *, loses: bool) -> None:
    run = Run(loses)
    run.start()
    await run.hub.start()
    for step in told:
        await run.step(step)
    await run.settle()
    for connection in run.connections:
        run.check(connection, closed=False)
        assert connection.outlet.subs == {}
        assert connection.outlet.kept_bytes == 0
    for _ in range(20):  # readings after a loss that find nothing to tell
        await asyncio.sleep(0)
    assert (run.hub.channels, run.hub.subscriptions) == (0, 0)
    assert run.broker.listening == set()
    await run.hub.close()
