"""``taskwire version``."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Final

import typer

from taskwire import __version__
from taskwire.cli.options import Json
from taskwire.cli.output import print_json

LIBRARIES: Final = ("uvicorn", "uvloop", "websockets", "fastapi", "pydantic", "sqlalchemy", "av")
"""What a bug report should name."""


def version(json: Json = False) -> None:
    """Print the version, and those of the main libraries."""
    found = {"taskwire": __version__, "python": platform.python_version(), **library_versions()}
    if json:
        print_json(found)
    else:
        typer.echo(f"taskwire {__version__}")
        typer.echo(", ".join(f"{name} {number}" for name, number in found.items() if name != "taskwire"))


def library_versions() -> dict[str, str]:
    """The installed versions; "missing" where there is none."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
