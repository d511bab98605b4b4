"""All services of a node in one place, for the server and the API to use."""

from collections.abc import Callable
from dataclasses import dataclass

from taskwire.hub.hub import Hub
from taskwire.hub.ports import Broker
from taskwire.services.accounts import AccountService
from taskwire.services.dispatch import Dispatcher
from taskwire.services.retention import Retention
from taskwire.services.tasks import TaskService
from taskwire.settings import Settings
from taskwire.store.database import Database
from taskwire.store.tasks import TaskReader
from taskwire.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Services:
    """Made by ``server.runtime``; lives as long as the server runs."""

    settings: Settings
    database: Database
    broker: Broker
    writer: Writer
    hub: Hub
    reader: TaskReader
    tasks: TaskService
    accounts: AccountService
    dispatcher: Dispatcher
    retention: Retention
    clock: Callable[[], int]
    """The time, in ms since 1970 UTC."""
    absolute: Callable[[str], str]
    """Makes the URL of a file of ours absolute; leaves others as they are."""
