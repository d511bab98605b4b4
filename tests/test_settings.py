"""Settings come from the right place, in the right order, and wrong ones are refused with what was wanted."""

import tomllib
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from taskwire.cli.effective import origins
from taskwire.settings import Settings, SettingsError, env_names, is_loopback, split_address

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=["WS_AUTH_TIMEOUT", "TASKWIRE_WS_AUTH_TIMEOUT_MS"])
def variable(request: pytest.FixtureRequest) -> str:
    """Both names of one setting: the contract's, and ours."""
    return str(request.param)


def test_defaults() -> None:
    settings = Settings()
    assert settings.listen == ("127.0.0.1:3000",)
    assert settings.ws_auth_timeout_ms == 10_000
    assert settings.ws_heartbeat_interval_ms == 30_000
    assert settings.database_url == "sqlite+aiosqlite:///data/taskwire.db"
    settings.check()


def test_contract_names_in_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "500")
    assert Settings().ws_auth_timeout_ms == 500


def test_contract_names_in_a_dotenv_file(variable: str) -> None:
    Path(".env").write_text(f"{variable}=500\nWS_AUTH_TOKEN=shared\nTASKWIRE_LISTEN=127.0.0.1:1, [::1]:2\n")
    settings = Settings()
    assert settings.ws_auth_timeout_ms == 500
    assert settings.ws_auth_token == SecretStr("shared")
    assert settings.addresses == (("127.0.0.1", 1), ("::1", 2))


def test_the_contract_name_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_AUTH_TIMEOUT", "500")
    monkeypatch.setenv("TASKWIRE_WS_AUTH_TIMEOUT_MS", "700")
    assert Settings().ws_auth_timeout_ms == 500


SOURCES: Mapping[str, int] = {"command line": 111, "environment": 222, ".env": 333, "taskwire.toml": 444}


@pytest.mark.parametrize("field", ["ws_auth_timeout_ms", "max_page"])
@pytest.mark.parametrize("given", [c for n in range(5) for c in combinations(SOURCES, n)], ids="+".join)
def test_precedence(given: tuple[str, ...], field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sources that give a value, the strongest wins; ``taskwire config`` names just that one."""
    for number, source in enumerate(SOURCES):
        # Each source has another of the names, so that none wins by its name.
        name = env_names(Settings, field)[number % len(env_names(Settings, field))]
        if source not in given:
            continue
        if source == "environment":
            monkeypatch.setenv(name, str(SOURCES[source]))
        elif source == ".env":
            Path(".env").write_text(f"{name}={SOURCES[source]}\n")
        elif source == "taskwire.toml":
            Path("taskwire.toml").write_text(f"{field} = {SOURCES[source]}\n")
    overrides: dict[str, Any] = {field: SOURCES["command line"]} if "command line" in given else {}
    default = Settings.model_fields[field].default
    assert getattr(Settings(**overrides), field) == (SOURCES[given[0]] if given else default)
    assert origins(overrides)[field].source == (given[0] if given else "default")


def test_empty_variables_count_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKWIRE_DEMO", "")
    monkeypatch.setenv("TASKWIRE_ORIGINS", "")
    assert Settings().demo is False
    assert origins({})["demo"].source == "default"


def test_comma_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKWIRE_ORIGINS", "https://a.example, https://b.example,,")
    monkeypatch.setenv("TASKWIRE_TRUSTED_PROXIES", "10.0.0.0/8,::1")
    settings = Settings()
    assert settings.origins == ("https://a.example", "https://b.example")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1")


def test_toml() -> None:
    Path("taskwire.toml").write_text(
        'listen = ["127.0.0.1:5", "[::1]:5"]\nws_deflate = false\ndata = "~/kept"\n'
    )
    settings = Settings()
    assert settings.listen == ("127.0.0.1:5", "[::1]:5")
    assert settings.ws_deflate is False
    assert settings.data == Path("~/kept").expanduser()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lisen = 1", r"no setting `lisen` \(taskwire.toml\); did you mean `listen`"),
        ("TASKWIRE_DEMO = true", r"no setting `TASKWIRE_DEMO` .*did you mean `demo`"),
        ("[taskwire]\ndemo = true", "no setting `taskwire`"),
        ('config = "other.toml"', "there is only one"),
        ("demo = = 1", "taskwire.toml is not valid TOML"),
        ("demo = '\udcff'", "taskwire.toml is not valid TOML"),
    ],
)
def test_bad_toml(text: str, said: str) -> None:
    Path("taskwire.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=said):
        Settings()


@pytest.mark.parametrize("source", ["argument", "environment", "dotenv"])
def test_a_named_toml_file(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("other.toml").write_text("max_page = 7\n")
    Path("taskwire.toml").write_text("max_page = 8\n")

    def load(path: str) -> Settings:
        if source == "argument":
            return Settings(config=path)
        if source == "environment":
            monkeypatch.setenv("TASKWIRE_CONFIG", path)
        else:
            Path(".env").write_text(f"TASKWIRE_CONFIG={path}\n")
        return Settings()

    assert load("other.toml").max_page == 7
    with pytest.raises(SettingsError, match=r"missing\.toml cannot be read: No such file"):
        load("missing.toml")


def test_unknown_arguments() -> None:
    with pytest.raises(SettingsError, match="no setting `lissten`"):
        Settings(lissten=("127.0.0.1:1",))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("listen", "3000", "wanted HOST:PORT"),
        ("listen", "", "at least one HOST:PORT"),
        ("listen", "::1:3000", "wanted HOST:PORT"),
        ("listen", "127.0.0.1:65536", "wanted HOST:PORT"),
        ("listen", "127.0.0.1:１", "wanted HOST:PORT"),
        ("listen", "http://127.0.0.1:3000", "wanted HOST:PORT"),
        ("database", "mysql://x/y", "wanted sqlite:///FILE or postgresql://"),
        ("database", "data.db", "wanted sqlite:///FILE or postgresql://"),
        ("broker", "redis", "wanted memory: or a URL"),
        ("public_url", "media.example", "wanted a URL such as"),
        ("jwks_url", "file:///etc/passwd", "wanted a URL such as"),
        ("trusted_proxies", "10.0.0.0/33", "wanted addresses or networks"),
        ("secret", "short", "wanted 32 characters or more"),
        ("lease", "nan", "less than or equal"),
        ("ws_message_rate", "inf", "finite"),
        ("retention_tasks", "-1", "greater than or equal"),
        ("max_page", "0", "greater than or equal"),
    ],
)
def test_bad_values(name: str, value: str, wanted: str) -> None:
    with pytest.raises(ValidationError, match=wanted):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_errors_do_not_repeat_secrets() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(secret="hunter2-hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(refused.value)


def test_settings_do_not_show_secrets() -> None:
    settings = Settings(secret=SecretStr(SECRET), ws_auth_token=SecretStr("shared-token"))
    assert SECRET not in repr(settings) + str(settings.model_dump_json())
    assert "shared-token" not in repr(settings)


@pytest.mark.parametrize(
    ("listen", "demo", "secret", "served"),
    [
        ("127.0.0.1:3000", False, "", True),
        ("127.0.0.1:3000,[::1]:3000,localhost:3001,127.8.8.8:1", True, "", True),
        ("0.0.0.0:3000", False, "", False),
        ("0.0.0.0:3000", True, "", False),
        ("127.0.0.1:3000,192.168.0.1:3000", False, "", False),
        ("[::]:3000", False, "", False),
        ("media.example:3000", False, "", False),
        ("0.0.0.0:3000", False, SECRET, True),
        ("0.0.0.0:3000", True, SECRET, True),
    ],
)
def test_only_a_configured_secret_opens_the_server(
    listen: str, demo: bool, secret: str, served: bool
) -> None:
    settings = Settings(listen=listen, demo=demo, secret=SecretStr(secret))  # type: ignore[arg-type]
    if served:
        settings.check()
    else:
        with pytest.raises(ValueError, match=r"loopback addresses only, but .* Set TASKWIRE_SECRET"):
            settings.check()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("localhost.example", False)],
)  # fmt: skip
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_split_address() -> None:
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:3000") == ("::1", 3000)
    assert split_address("localhost:65535") == ("localhost", 65535)


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////var/lib/x.db", "sqlite+aiosqlite:////var/lib/x.db"),
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u@h/d?x=1", "postgresql+asyncpg://u@h/d?x=1"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_database_url(url: str, driver: str) -> None:
    assert Settings(database=url).database_url == driver


@pytest.mark.parametrize(
    ("listen", "public", "base"),
    [
        (("127.0.0.1:3000", "127.0.0.1:3001"), "", "http://127.0.0.1:3000"),
        (("0.0.0.0:80",), "", "http://127.0.0.1:80"),
        (("[::1]:3000",), "", "http://[::1]:3000"),
        (("127.0.0.1:3000",), "https://media.example/", "https://media.example"),
    ],
)
def test_base_url(listen: tuple[str, ...], public: str, base: str) -> None:
    assert Settings(listen=listen, public_url=public).base_url == base


def test_every_setting_can_be_given_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default, written as a variable and as TOML, is taken back as the same value."""
    defaults = Settings()
    for name in Settings.model_fields:
        value = getattr(defaults, name)
        if isinstance(value, SecretStr) or not value:
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        for variable in env_names(Settings, name):
            with monkeypatch.context() as patch:
                patch.setenv(variable, text)
                settings = Settings()
                assert getattr(settings, name) == value
                assert name in settings.model_fields_set, variable
        shown = str(value).lower() if isinstance(value, bool | int | float) else repr(text)
        assert tomllib.loads(f"{name} = {shown}")
        Path("taskwire.toml").write_text(f"{name} = {shown}\n")
        assert getattr(Settings(), name) == value
        Path("taskwire.toml").unlink()
