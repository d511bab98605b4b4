"""The settings in effect and where each comes from; errors in them as lines that name the variable to mend."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from taskwire.masking import MASK, mask_text
from taskwire.settings import DEFAULT_CONFIG, Settings, env_names, read_toml

COMMAND_LINE: Final = "command line"
ENVIRONMENT: Final = "environment"
DOTENV: Final = ".env"
DEFAULT: Final = "default"

_PREFIX: Final = "TASKWIRE_"
_OTHER_VARIABLES: Final = {"TASKWIRE_URL", "TASKWIRE_TOKEN", "TASKWIRE_DEBUG"}
"""Variables of the command line's own, which are no settings of the server."""

_WANTED: Final = {
    "bool_parsing": "wanted true or false",
    "bool_type": "wanted true or false",
    "int_parsing": "wanted a whole number",
    "int_from_float": "wanted a whole number",
    "int_type": "wanted a whole number",
    "float_parsing": "wanted a number",
    "float_type": "wanted a number",
    "finite_number": "wanted a finite number",
    "greater_than": "wanted more than {gt:g}",
    "greater_than_equal": "wanted {ge:g} or more",
    "less_than": "wanted less than {lt:g}",
    "less_than_equal": "wanted {le:g} or less",
    "literal_error": "wanted {expected}",
    "string_type": "wanted text",
    "string_too_long": "wanted at most {max_length} characters",
    "tuple_type": "wanted a list",
}


class BadSettings(Exception):
    """The settings cannot be used; ``lines`` say one thing each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from: the kind of source (or the TOML file's path), and the name it has there."""

    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as it is in effect; ``shown`` is safe to print."""

    name: str
    field: FieldInfo
    shown: Any
    origin: Origin


def load(**overrides: Any) -> Settings:
    """The settings with those of the command line on top; None means "not given". Raises BadSettings."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise BadSettings(explain(error, origins(given))) from None
    except ValueError as error:  # SettingsError: a source, not a value
        raise BadSettings([str(error)]) from None


def check(settings: Settings) -> None:
    """Raise BadSettings if the settings may not be served."""
    try:
        settings.check()
    except ValueError as error:
        raise BadSettings([str(error)]) from None


def effective(settings: Settings, overrides: Mapping[str, Any]) -> Iterator[Effective]:
    """Every setting, in the order of the documentation."""
    found = origins({name: value for name, value in overrides.items() if value is not None})
    for name, field in Settings.model_fields.items():
        yield Effective(name, field, show(getattr(settings, name)), found[name])


def show(value: Any) -> Any:
    """A setting's value as JSON-able data, with secrets masked."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return [show(item) for item in value]
    return mask_text(str(value)) if isinstance(value, str | Path) else value


def origins(given: Mapping[str, Any]) -> dict[str, Origin]:
    """Where each field's value comes from, by field name; ``given`` came on the command line."""
    environment, dotenv = _variables()
    variable = env_names(Settings, "config")[0].lower()
    named = str(given.get("config") or environment.get(variable) or dotenv.get(variable) or "")
    toml = {name.lower(): name for name in _toml_names(named)}
    path = str(Path(named).expanduser() if named else DEFAULT_CONFIG)
    found: dict[str, Origin] = {}
    for name, field in Settings.model_fields.items():
        variables = [variable.lower() for variable in env_names(Settings, name)]
        keys = [name, *_aliases(field)]
        if name in given:
            found[name] = Origin(COMMAND_LINE, f"--{name.replace('_', '-')}")
        elif variable := next((v for v in variables if v in environment), ""):
            found[name] = Origin(ENVIRONMENT, variable.upper())
        elif variable := next((v for v in variables if v in dotenv), ""):
            found[name] = Origin(DOTENV, variable.upper())
        elif key := next((toml[k] for k in keys if k in toml), ""):
            found[name] = Origin(path, key)
        else:
            found[name] = Origin(DEFAULT, env_names(Settings, name)[0])
    return found


def explain(error: ValidationError, found: Mapping[str, Origin]) -> list[str]:
    """One line per wrong value: the name under which it was given, where, and what was wanted."""
    names = {
        alias: name for name, field in Settings.model_fields.items() for alias in (name, *_aliases(field))
    }
    lines = []
    for problem in error.errors(include_url=False):
        name = names[str(problem["loc"][0]).lower()]
        origin, context = found[name], problem.get("ctx", {})
        if isinstance(raised := context.get("error"), ValueError):
            wanted = str(raised)
        elif problem["type"] == "string_pattern_mismatch":
            wanted = f"wanted text such as {Settings.model_fields[name].default}"
        else:
            wanted = _WANTED.get(problem["type"], problem["msg"]).format_map({**context})
        secret = isinstance(Settings.model_fields[name].default, SecretStr)
        if not secret and "but got" not in wanted:
            wanted += f", but got {mask_text(str(problem['input']), 80)!r}"
        lines.append(f"{origin.name} ({origin.source}): {wanted}")
    return lines


def unknown_variables() -> dict[str, str]:
    """Variables that look like settings but are none, and the nearest that is one ("" if none is near)."""
    known = {variable for name in Settings.model_fields for variable in env_names(Settings, name)}
    given = sorted({name.upper() for source in _variables() for name in source})
    strange = [name for name in given if name.startswith(_PREFIX) and name not in known | _OTHER_VARIABLES]
    # Compared without the prefix, which would make everything look alike.
    ends = {variable.removeprefix(_PREFIX): variable for variable in known}
    return {
        name: next(
            (ends[near] for near in difflib.get_close_matches(name.removeprefix(_PREFIX), ends, n=1)), ""
        )
        for name in strange
    }


def _aliases(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(choice).lower() for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _variables() -> tuple[Mapping[str, str | None], Mapping[str, str | None]]:
    """The environment and the ``.env`` file as the settings read them: names in lower case, nothing empty."""
    return EnvSettingsSource(Settings).env_vars, DotEnvSettingsSource(Settings).env_vars


def _toml_names(named: str) -> list[str]:
    try:
        return list(read_toml(Settings, named))
    except ValueError:  # reported by whoever loads the settings
        return []
