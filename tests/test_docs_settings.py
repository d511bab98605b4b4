"""docs/settings.md tells every setting with its variables, its default and its meaning, and is up to date."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr

from taskwire.settings import Settings, env_names
from tools import settings_doc

TEXT: Final = settings_doc.FILE.read_text(encoding="utf-8")
ROWS: Final = {
    cells[0].strip("` "): [cell.strip() for cell in cells]
    for line in TEXT.splitlines()
    if line.startswith("| `")
    for cells in [line.strip("|").split(" | ")]
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_up_to_date() -> None:
    assert settings_doc.document(TEXT) == TEXT, "run tools/settings_doc.py"


def test_every_setting_in_a_group() -> None:
    grouped = [name for names in settings_doc.groups().values() for name in names]
    assert grouped == list(Settings.model_fields)
    assert list(ROWS) == grouped
    assert all(f"\n## {title}\n" in TEXT for title in settings_doc.groups())


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default that is written there, given by each of the variables, is the default."""
    _, variables, default, meaning = ROWS[name]
    assert re.findall(r"`(\w+)`", variables) == list(env_names(Settings, name))
    assert len(meaning) > 10
    assert meaning.endswith((".", ":"))
    text = default.partition("`")[2].partition("`")[0]
    known = Settings.model_fields[name].default
    if isinstance(known, SecretStr) or not text:
        assert default == "–"
        assert known in ("", (), SecretStr(""))
        return
    for variable in env_names(Settings, name):
        with monkeypatch.context() as patch:
            patch.setenv(variable, text)
            settings = Settings()
        assert getattr(settings, name) == known
        assert name in settings.model_fields_set


def test_the_example_file_is_good(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "taskwire.toml").write_text(example)
    settings = Settings()
    given = tomllib.loads(example)
    assert settings.model_fields_set == given.keys()
    assert list(settings.listen) == given["listen"]


def test_large_defaults_are_also_told_in_words() -> None:
    assert ROWS["token_lifetime"][2] == "`3600` (1 h)"
    assert ROWS["retention_tasks"][2] == "`7776000` (90 d)"
    assert ROWS["ws_max_message"][2] == "`65536` (64 KiB)"
    assert ROWS["ws_auth_timeout_ms"][2] == "`10000`"


def test_the_tool_writes_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "settings.md"
    copy.write_text(TEXT.replace("`3600` (1 h)", "`3601`"))
    monkeypatch.setattr(settings_doc, "FILE", copy)
    monkeypatch.setattr("sys.argv", ["settings_doc.py", "--check"])
    assert settings_doc.main() == 1
    monkeypatch.setattr("sys.argv", ["settings_doc.py"])
    assert settings_doc.main() == 0
    assert copy.read_text() == TEXT
    monkeypatch.setattr("sys.argv", ["settings_doc.py", "--check"])
    assert settings_doc.main() == 0
