"""Fixtures and settings of all tests."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

pytest.register_assert_rewrite("tests.support")

from tests.support import services  # noqa: E402 - only now, so that its assertions are rewritten as well
from tests.support.processes import die_with_parent  # noqa: E402
from tests.support.server import ServerProcess, is_setting  # noqa: E402
from tests.support.timing import scaled  # noqa: E402

TEST_TIMEOUT = 120  # seconds, for a test without a mark of its own

# Neither the machine's speed nor chance decides about a test; CI runs the same examples every time.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")
    if config.getoption("timeout") is None:
        config.option.timeout = scaled(TEST_TIMEOUT)
    if hasattr(config, "workerinput"):
        die_with_parent()  # a worker of xdist would finish its test first
    for name in filter(is_setting, list(os.environ)):
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (mark := item.get_closest_marker("timeout")) and mark.args:
            item.add_marker(
                pytest.mark.timeout(scaled(mark.args[0]), *mark.args[1:], **mark.kwargs), append=False
            )


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests (``@pytest.mark.anyio``) run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """This test process's own PostgreSQL; tests that stop it start it again."""
    with services.Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: services.Postgres) -> Iterator[str]:
    """URL of an empty PostgreSQL database of the test's own: ``postgresql://…``."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[services.Redis]:
    """This test process's own Redis; tests that stop it start it again."""
    with services.Redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: services.Redis) -> str:
    """URL of an empty Redis: ``redis://…``."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The installed browser."""
    return services.find_chromium()


@pytest.fixture(scope="session")
def node() -> Path:
    """Node.js, with the packages of package-lock.json installed; run scripts with ``cwd=services.ROOT``."""
    return services.find_node()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start a server, with the arguments of ``ServerProcess`` but its folder, until the end of the test.

    The logs are shown when the test fails.
    """
    started: list[ServerProcess] = []
    with ExitStack() as stack:

        def start(**options: Any) -> ServerProcess:
            folder = tmp_path / f"server-{len(started)}"
            folder.mkdir()
            started.append(ServerProcess(folder, **options))
            return stack.enter_context(started[-1])

        yield start
    for server in started:
        print(f"--- log of {server.url}\n{server.log()[-20_000:]}")


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A running server of the test's own, in demo mode."""
    return start_server()
