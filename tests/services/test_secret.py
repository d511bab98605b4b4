"""The installation's secret: configured, or made once and kept."""

import stat
import threading
from pathlib import Path

import pytest

from taskwire.masking import mask_text
from taskwire.services.secret import installation_secret
from tests.support.accounts import make_settings


def test_the_configured_one_is_taken_and_nothing_is_written(tmp_path: Path) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    assert installation_secret(make_settings(secret=secret, data=tmp_path / "data")) == secret
    assert not (tmp_path / "data").exists()
    assert secret not in mask_text(f"the secret is {secret}!")


def test_one_is_made_and_found_again(tmp_path: Path) -> None:
    settings = make_settings(data=tmp_path / "new" / "data")
    secret = installation_secret(settings)
    assert len(secret) == 64
    assert installation_secret(settings) == secret
    assert installation_secret(make_settings(data=tmp_path / "other")) != secret
    kept = settings.data / "secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in settings.data.iterdir()] == ["secret"]
    assert secret not in mask_text(f"the secret is {secret}!")


def test_many_at_once_agree(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        settings = make_settings(data=tmp_path)
        barrier.wait(30)
        found.append(installation_secret(settings))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe"])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged: wanted 32 characters"):
        installation_secret(make_settings(data=tmp_path))
