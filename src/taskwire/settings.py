"""Every setting of the server, in one place: from the environment, a ``.env`` file, a TOML file, or the command line.

Precedence, strongest first: command line, environment, ``.env``, the TOML file, the default. Environment variables are
``TASKWIRE_`` and the field's name in capitals. The contract's own names (``WS_HEARTBEAT_INTERVAL``,
``WS_AUTH_TIMEOUT``, ``WS_AUTH_TOKEN``) are taken as well. Durations are seconds unless the name says ``_ms``; sizes are
bytes.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Seconds = Annotated[float, Field(gt=0, le=365 * 86400)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Bytes = Annotated[int, Field(ge=1, le=1 << 40)]
Listed = Annotated[tuple[str, ...], NoDecode]

DEFAULT_CONFIG: Final = Path("taskwire.toml")
"""Read, if it is there, when no other TOML file is named."""

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite", "sqlite+aiosqlite": "sqlite+aiosqlite", "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg", "postgresql+asyncpg": "postgresql+asyncpg",
}  # fmt: skip


class SettingsError(ValueError):
    """A source of settings cannot be used (missing file, bad TOML, unknown name); the message says which and why."""


class Settings(BaseSettings):
    """The effective settings. Unknown names in the TOML file are an error, so that a typo does not pass in silence."""

    model_config = SettingsConfigDict(
        env_prefix="TASKWIRE_", env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore",
        frozen=True, populate_by_name=True, validate_default=True,
        hide_input_in_errors=True,  # an error must not repeat a secret that was too short
    )  # fmt: skip

    # Where it runs
    config: str = Field(
        "", description="TOML file of settings. Default: `taskwire.toml` here, if there is one."
    )
    demo: bool = Field(
        False, description="Demo mode: for a look, on this machine. `demo-token` lets in to jobs."
    )
    listen: Listed = Field(
        ("127.0.0.1:3000",), description="Addresses to listen on, HOST:PORT, several separated by commas."
    )
    public_url: str = Field(
        "",
        description="How browsers reach the server; base of the URLs of rendered files. Default: first address.",
    )
    data: Path = Field(
        Path("data"), description="Folder of everything kept on disk: database, secret, media."
    )
    database: str = Field(
        "", description="SQLAlchemy URL: sqlite or postgresql. Default: a SQLite file in `data`."
    )
    broker: str = Field(
        "memory:", description="How nodes tell each other news: `memory:` or a `redis://` URL."
    )
    node_name: str = Field(
        "", max_length=64, description="Name of this node among several. Default: host and data."
    )
    trusted_proxies: Listed = Field(
        (), description="Addresses or networks of proxies whose `X-Forwarded-For` and `-Proto` are believed."
    )

    # Secrets and login
    secret: SecretStr = Field(
        SecretStr(""),
        description="Key that signs tokens, 32 characters or more. Default: made, and kept in `data`.",
    )
    admin_password: SecretStr = Field(SecretStr(""), description="Password of `admin` at the first start.")
    token_lifetime: Seconds = Field(3600, description="Lifetime of an access token (JWT).")
    refresh_lifetime: Seconds = Field(30 * 86400, description="Lifetime of a refresh token.")
    jwks_url: str = Field("", description="JWKS of an outside identity provider; empty: none.")
    jwt_issuer: str = Field("", description="Issuer (`iss`) that tokens of the identity provider must carry.")
    jwt_audience: str = Field(
        "", description="Audience (`aud`) that tokens of the identity provider must carry."
    )
    jwt_algorithms: Listed = Field(
        ("RS256", "ES256", "EdDSA"), description="Algorithms taken from the provider."
    )
    jwks_cache: Seconds = Field(300, description="How long a fetched JWKS is kept.")
    login_attempts: Count = Field(
        10, description="Failed logins per user name and per address in `login_window`."
    )
    login_window: Seconds = Field(300, description="Time over which failed logins are counted.")
    login_concurrency: Count = Field(4, description="Password hashes computed side by side.")
    password_min_length: Count = Field(8, description="Shortest password taken.")
    ws_auth_token: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("WS_AUTH_TOKEN", "TASKWIRE_WS_AUTH_TOKEN"),
        description="Shared token of the jobs contract; empty: none.",
    )  # fmt: skip

    # WebSocket connections
    origins: Listed = Field(
        (),
        description="Origins whose pages may connect, e.g. https://app.example; `*` any. Empty: same host, loopback.",
    )
    ws_heartbeat_interval_ms: int = Field(
        30_000, ge=100, validation_alias=AliasChoices("WS_HEARTBEAT_INTERVAL", "TASKWIRE_WS_HEARTBEAT_INTERVAL_MS"),
        description="Time between heartbeat messages of the tasks contract.",
    )  # fmt: skip
    ws_auth_timeout_ms: int = Field(
        10_000, ge=50, validation_alias=AliasChoices("WS_AUTH_TIMEOUT", "TASKWIRE_WS_AUTH_TIMEOUT_MS"),
        description="Time a connection has for its first login.",
    )  # fmt: skip
    ws_token_grace: Seconds = Field(25, description="Time to send a fresh token after one has expired.")
    ws_ping_interval: Seconds = Field(60, description="Time between WebSocket pings.")
    ws_ping_timeout: Seconds = Field(
        30, description="Time beyond the interval without a sign of life until the close."
    )
    ws_close_timeout: Seconds = Field(
        5, description="Time a peer has to answer a close before the socket is cut."
    )
    ws_max_message: Bytes = Field(64 * 1024, description="Largest client message; larger ones get an error.")
    ws_max_frame: Bytes = Field(
        4 * 1024 * 1024, description="Largest client message that is read at all; then 1009."
    )
    ws_message_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        50, description="Client messages per second, long term."
    )
    ws_message_burst: Count = Field(1500, description="Client messages at once.")
    ws_flood_limit: Count = Field(
        200, description="Messages refused in a row until the connection is closed."
    )
    ws_max_queued: Count = Field(256, description="Unhandled client messages until reading pauses.")
    ws_max_subscriptions: Count = Field(1000, description="Subscriptions of one connection.")
    ws_max_ids: Count = Field(200, description="Ids in one client message.")
    ws_write_limit: Bytes = Field(
        1024 * 1024, description="Unsent bytes until a slow connection is closed (4008)."
    )
    ws_send_buffer: int = Field(
        0,
        ge=0,
        le=1 << 30,
        description="Kernel send buffer (SO_SNDBUF) of a connection; 0: the kernel's choice.",
    )
    ws_batch_interval_ms: int = Field(
        100, ge=1, le=60_000, description="Window of `batch: true` connections."
    )
    ws_deflate: bool = Field(True, description="Offer permessage-deflate.")
    ws_deflate_min_size: Bytes = Field(512, description="Smallest message that is compressed.")
    max_connections: Count = Field(20_000, description="Open WebSocket connections in all.")
    max_connections_per_user: Count = Field(1000, description="Logged-in connections of one user.")
    max_connections_per_address: Count = Field(2000, description="Open WebSocket connections of one address.")
    drain_time: Seconds = Field(5, description="Time over which clients are told to come back at a restart.")
    shutdown_timeout: Seconds = Field(10, description="Time that requests under way have at a shutdown.")

    access_recheck: Seconds = Field(
        15,
        description="Time between looks whether users' rights were changed on another node or by the command line.",
    )

    # REST
    max_body: Bytes = Field(8 * 1024 * 1024, description="Largest request body.")
    max_prompt: Count = Field(10_000, description="Longest prompt, in characters.")
    max_metadata: Bytes = Field(16 * 1024, description="Largest `metadata` or `result`, as JSON.")
    max_reports: Count = Field(1000, description="Reports in one batch.")
    max_page: Count = Field(200, description="Items on one page of a list.")
    idempotency_lifetime: Seconds = Field(86_400, description="How long an Idempotency-Key is remembered.")

    # Store
    commit_max_batch: Count = Field(4000, description="Changes in one group commit.")
    commit_queue: Count = Field(
        50_000, description="Changes waiting for a commit until new ones are refused."
    )
    store_timeout: Seconds = Field(10, description="Time a write is tried again while the database is away.")
    state_cache: Count = Field(20_000, description="Task states kept in memory by the writer.")
    sqlite_synchronous: Literal["NORMAL", "FULL"] = Field(
        "FULL", description="FULL: a commit survives a power cut; NORMAL: only a crash of the server."
    )
    database_pool: Count = Field(5, description="Database connections for reading.")
    retention_tasks: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        90 * 86_400,
        description="Finished tasks, their events and files are removed after this time; 0: never.",
    )
    retention_interval: Seconds = Field(600, description="Time between looks for what may be removed.")

    # The local renderer
    render_workers: int = Field(0, ge=0, le=256, description="Renders side by side; 0: one per core but one.")
    render_queue: Count = Field(1000, description="Waiting local renders until new ones are refused.")
    render_max_size: str = Field(
        "1920x1080", pattern=r"^\d+x\d+$", description="Largest picture, WIDTHxHEIGHT."
    )
    render_max_seconds: Seconds = Field(60, description="Longest video.")
    render_max_fps: Count = Field(60, description="Highest frame rate.")
    render_attempts: Count = Field(3, description="Attempts of a render that crashes interrupted.")
    lease: Seconds = Field(15, description="Time after which another node takes up the work of a dead one.")

    # Logs
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="How lines look; auto: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level written."
    )

    @field_validator("listen", "origins", "trusted_proxies", "jwt_algorithms", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("wanted at least one HOST:PORT")
        for address in value:
            split_address(address)
        return value

    @field_validator("data")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("wanted 32 characters or more, e.g. from `openssl rand -base64 48`")
        return value

    @field_validator("database")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and ("://" not in value or value.partition(":")[0] not in _DRIVERS):
            raise ValueError("wanted sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE")
        return value

    @field_validator("broker")
    @classmethod
    def _known_broker(cls, value: str) -> str:
        if ":" not in value or not value.partition(":")[0].isalnum():
            # Which schemes there are, the registry of brokers knows.
            raise ValueError("wanted memory: or a URL such as redis://HOST:PORT")
        return value

    @field_validator("public_url", "jwks_url")
    @classmethod
    def _web_url(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("wanted a URL such as https://media.example")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError(
                    f"wanted addresses or networks such as 10.0.0.0/8, but got {network!r}"
                ) from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        stronger = (init_settings, env_settings, dotenv_settings)
        known_names(settings_cls, init_settings(), "the arguments")
        named = next((source()["config"] for source in stronger if source().get("config")), "")
        toml = InitSettingsSource(settings_cls, read_toml(settings_cls, named))
        return (*stronger, toml)

    def check(self) -> None:
        """Raise ValueError if a server with these settings would be open to anyone who can reach it.

        Without a configured secret the server signs with one of its own, and demo mode takes a token that everybody
        knows: right for a look on one's own machine, wrong as soon as others can connect.
        """
        exposed = [address for address in self.listen if not is_loopback(split_address(address)[0])]
        if exposed and not self.secret.get_secret_value():
            mode = "Demo mode" if self.demo else "A server without TASKWIRE_SECRET"
            raise ValueError(
                f"{mode} listens on loopback addresses only, but {', '.join(exposed)} can be reached from outside. "
                "Set TASKWIRE_SECRET (32 characters or more, e.g. from `openssl rand -base64 48`), "
                "or listen on 127.0.0.1:PORT."
            )

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The listen addresses as (host, port)."""
        return tuple(split_address(address) for address in self.listen)

    @property
    def database_url(self) -> str:
        """The database as SQLAlchemy's async URL."""
        url = self.database or f"sqlite:///{self.data / 'taskwire.db'}"
        scheme, colon, rest = url.partition(":")
        return _DRIVERS[scheme] + colon + rest

    @property
    def base_url(self) -> str:
        """How clients reach the server, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host, port = self.addresses[0]
        host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  read, not bound
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """``HOST:PORT`` as (host, port); an IPv6 host stands in brackets. Raises ValueError saying what was wanted."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not colon or not host or (":" in host) is not bracketed or not 0 <= number <= 65535:
        raise ValueError(f"wanted HOST:PORT, e.g. 127.0.0.1:3000 or [::1]:3000, but got {address!r}")
    return host, number


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than localhost may lead anywhere: no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_toml(settings_cls: type[BaseSettings], named: str) -> dict[str, Any]:
    """The TOML file's settings; {} if none was named and ``taskwire.toml`` is not there. Raises SettingsError."""
    path = Path(named).expanduser() if named else DEFAULT_CONFIG
    if not named and not path.is_file():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"The settings file {path} is not valid TOML: {error}") from None
    known_names(settings_cls, found, str(path))
    if "config" in (name.lower() for name in found):
        raise SettingsError(f"`config` in {path} would name another file; there is only one.")
    return found


def env_names(settings_cls: type[BaseSettings], name: str) -> tuple[str, ...]:
    """The environment variables that set the field ``name``, the one that wins first."""
    alias = settings_cls.model_fields[name].validation_alias
    own = f"TASKWIRE_{name.upper()}"
    choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else []
    return tuple(dict.fromkeys((*choices, own)))


def known_names(
    settings_cls: type[BaseSettings], given: Mapping[str, Any] | Iterable[str], where: str
) -> None:
    """Raise SettingsError if ``given`` has a name that is no setting, so that a typo does not pass in silence."""
    names = {name: name for name in settings_cls.model_fields}
    for name, field in settings_cls.model_fields.items():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(choice).lower(): name for choice in field.validation_alias.choices}
    for name in given:
        if name.lower() not in names:
            near = difflib.get_close_matches(name.lower().removeprefix("taskwire_"), names, n=1)
            hint = f"; did you mean `{names[near[0]]}`?" if near else "."
            raise SettingsError(f"There is no setting `{name}` ({where}){hint}")
