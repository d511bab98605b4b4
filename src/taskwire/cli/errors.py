"""Errors as people should see them: one clear line on standard error, exit code 2 for wrong use and 1 for failure."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from taskwire.cli.effective import BadSettings
from taskwire.cli.output import note
from taskwire.client.errors import ClientError
from taskwire.core.errors import TaskwireError
from taskwire.masking import mask_text
from taskwire.store.migrate import MigrationError

INTERRUPTED = 130  # as shells report a program that Ctrl-C ended
DEBUG_OPTION = "--debug"
DEBUG_VARIABLE = "TASKWIRE_DEBUG"


class Failure(Exception):
    """A command could not do what was asked; the message is the line to show."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Commands(TyperGroup):
    """The outermost group: whatever goes wrong below it ends here."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(
                given,
                prog_name=prog_name or "taskwire",
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except (Exception, KeyboardInterrupt) as error:
            debug = DEBUG_OPTION in given or os.environ.get(DEBUG_VARIABLE, "").lower() in (
                "1",
                "true",
                "yes",
                "on",
            )
            if debug and not isinstance(error, TyperException | KeyboardInterrupt):
                raise
            code = explain(error)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def explain(error: BaseException) -> int:
    """Say on standard error what went wrong; gives the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Abort):  # a question answered with no, or not at all
        note("Nothing was done.")
        return 1
    if isinstance(error, BadSettings):
        for line in error.lines:  # which have been masked, where that was needed
            note(f"taskwire: {line}", style="red")
        return 1
    if isinstance(error, TyperException):
        if not error.format_message():  # a group without a command: its help has been shown
            return error.exit_code
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "taskwire"
        text = error.format_message()
        _complain(f"{text}{'' if text.endswith(('.', '?')) else '.'} See `{path} --help`.")
        return error.exit_code
    if isinstance(error, Failure):
        _complain(str(error))
        return error.code
    if isinstance(error, TaskwireError):
        _complain(error.message)
    elif isinstance(error, ClientError | MigrationError):
        _complain(str(error))
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}")
    else:
        _complain(f"{type(error).__name__}: {error} (use {DEBUG_OPTION} to see where)")
    return 1


def fail(message: str) -> NoReturn:
    """End the command with this line and exit code 1."""
    raise Failure(message)


def _complain(text: str) -> None:
    note(f"taskwire: {mask_text(text)}", style="red")
