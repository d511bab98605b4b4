"""The contracts we speak, by name; a new one is a file here and a line in ``DIALECTS``."""

from collections.abc import Callable, Mapping

from taskwire.wire.dialect import Dialect
from taskwire.wire.dialects.tasks import TasksDialect

DIALECTS: Mapping[str, Callable[[Callable[[], int], Callable[[str], str]], Dialect]] = {
    "tasks": TasksDialect,
}
"""Name -> factory, called with a clock (ms since 1970) and a function that makes a stored URL absolute."""
