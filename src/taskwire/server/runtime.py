"""Everything a node is made of: built from the settings, started and stopped in the right order."""

import asyncio
import functools
import hashlib
import os
import socket
import sys
import time
from collections.abc import Sequence

import structlog

from taskwire.brokers import create_broker
from taskwire.core.events import Event
from taskwire.hub.hub import Hub
from taskwire.hub.outlet import BatchClock
from taskwire.providers import create_providers
from taskwire.server.connections import Connections
from taskwire.server.context import SessionContext
from taskwire.server.origins import TrustedProxies
from taskwire.server.recheck import Recheck
from taskwire.server.sweep import Sweep
from taskwire.server.websocket import SocketContext, WebSocketConnection
from taskwire.services.accounts import AccountService
from taskwire.services.container import Services
from taskwire.services.dispatch import Dispatcher
from taskwire.services.ports import ProviderConfig
from taskwire.services.retention import Retention
from taskwire.services.secret import installation_secret
from taskwire.services.tasks import TaskService
from taskwire.settings import Settings
from taskwire.store.accounts import Accounts
from taskwire.store.database import Database
from taskwire.store.migrate import migrate
from taskwire.store.tasks import TaskReader, TaskTable
from taskwire.store.writer import Writer
from taskwire.wire.dialects import DIALECTS

log = structlog.get_logger(__name__)


def now_ms() -> int:
    """The time, in ms since 1970 UTC."""
    return time.time_ns() // 1_000_000


class Runtime:
    """A node. Made on the event loop that it will run on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ready = False
        self.draining = False
        self.started_at = time.monotonic()
        database = Database(
            settings.database_url, pool_size=settings.database_pool, synchronous=settings.sqlite_synchronous
        )
        broker = create_broker(settings.broker)
        reader = TaskReader(database)
        table = TaskTable(database.url.get_backend_name())
        providers = create_providers(_provider_config(settings))
        writer = Writer(
            database,
            self._publish,
            clock=now_ms,
            max_batch=settings.commit_max_batch,
            max_queue=settings.commit_queue,
            timeout=settings.store_timeout,
            cache_size=settings.state_cache,
            lost=self._read_anew,
        )
        tasks = TaskService(
            writer=writer,
            reader=reader,
            table=table,
            providers=providers,
            clock=now_ms,
            max_waiting=settings.render_queue,
        )
        accounts = AccountService(Accounts(database), settings, installation_secret(settings), clock=now_ms)
        self.services = Services(
            settings=settings,
            database=database,
            broker=broker,
            writer=writer,
            hub=Hub(broker, tasks.load),
            reader=reader,
            tasks=tasks,
            accounts=accounts,
            dispatcher=Dispatcher(
                tasks=tasks,
                reader=reader,
                providers=providers,
                node=node_name(settings),
                clock=now_ms,
                lease=settings.lease,
                max_attempts=settings.render_attempts,
            ),
            retention=Retention(
                reader=reader,
                accounts=accounts,
                providers=providers.values(),
                clock=now_ms,
                keep_tasks=settings.retention_tasks,
                keep_keys=settings.idempotency_lifetime,
                interval=settings.retention_interval,
            ),
            clock=now_ms,
            absolute=functools.partial(_absolute, settings.base_url),
        )
        self.connections = Connections(
            limit=settings.max_connections,
            per_address=settings.max_connections_per_address,
            per_user=settings.max_connections_per_user,
        )
        self.sweep = Sweep(
            heartbeat_interval=settings.ws_heartbeat_interval_ms / 1000,
            ping_interval=settings.ws_ping_interval,
        )
        self.recheck = Recheck(
            accounts,
            self.connections,
            interval=settings.access_recheck,
            changed=accounts.changed_elsewhere,
        )
        self.sockets: dict[WebSocketConnection, None] = {}
        self.socket_context = self._socket_context()

    def _publish(self, events: Sequence[Event]) -> None:
        """What the writer does with committed events: tell the hubs, ours and the other nodes', and our workers."""
        self.services.broker.publish(events)
        self.services.dispatcher.notice(events)

    def _read_anew(self) -> None:
        """The writer cannot tell whether all that was committed was told: let the hub look for itself."""
        self.services.hub.resync()

    def _socket_context(self) -> SocketContext:
        settings, services = self.settings, self.services
        dialects = {name: make(now_ms, services.absolute) for name, make in DIALECTS.items()}
        call_later = asyncio.get_running_loop().call_later
        session = SessionContext(
            settings=settings,
            hub=services.hub,
            tasks=services.tasks,
            accounts=services.accounts,
            connections=self.connections,
            sweep=self.sweep,
            batch_clock=BatchClock(settings.ws_batch_interval_ms / 1000, call_later),
            clock=now_ms,
        )
        return SocketContext(
            session=session,
            dialects=dialects,
            proxies=TrustedProxies(settings.trusted_proxies),
            started_at=self.started_at,
            draining=lambda: self.draining,
            all=self.sockets,
        )

    async def start(self) -> str | None:
        """Migrate, then start everything. Gives the admin's password if this first start has made one up."""
        # Short turns between threads: the store's thread and the event loop hand the interpreter to each other often
        # (docs/decisions/0002-sqlite-threads.md).
        sys.setswitchinterval(0.0005)
        services = self.services
        applied = await migrate(services.database, timeout=60)
        if applied:
            log.info("store.migrated", versions=applied)
        password = await services.accounts.bootstrap()
        services.accounts.on_access_changed.append(self._recheck)
        services.writer.start()
        await services.hub.start()
        await services.dispatcher.start()
        services.retention.start()
        self.sweep.start()
        self.recheck.start()
        self.ready = True
        return password

    def _recheck(self, user_id: str) -> None:
        for session in self.connections.of_user(user_id):
            session.recheck()

    async def stop(self) -> None:
        """Finish what was begun: work goes back to the queue, submitted changes are committed."""
        self.ready = False
        services = self.services
        self.sweep.close()
        await self.recheck.close()
        await services.retention.close()
        await services.dispatcher.close()
        await services.writer.close()
        await services.hub.close()
        await services.accounts.close()
        await services.database.close()


def node_name(settings: Settings) -> str:
    """A name that is the same after a restart, and another one on another machine or data folder."""
    if settings.node_name:
        return settings.node_name
    place = f"{socket.gethostname()}:{os.path.realpath(settings.data)}"
    return "node-" + hashlib.sha256(place.encode()).hexdigest()[:16]


def _absolute(base: str, url: str) -> str:
    """A stored URL as clients need it: those of our own files are stored without the host."""
    return base + url if url.startswith("/") else url


def _provider_config(settings: Settings) -> ProviderConfig:
    return ProviderConfig(
        media=settings.data / "media",
        render_workers=settings.render_workers or max(1, (os.cpu_count() or 2) - 1),
        render_max_size=settings.render_max_size,
        render_max_seconds=settings.render_max_seconds,
        render_max_fps=settings.render_max_fps,
    )
