"""The package's layers: what each may import, as written down for import-linter in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.services import ROOT


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with our contracts over the package in the folder ``source``."""
    program = f"import sys; sys.path.insert(0, {str(source)!r}); from importlinter.cli import lint_imports; "
    program += f"sys.exit(lint_imports(config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True, no_logo=True))"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False
    )


def test_every_contract_is_kept() -> None:
    result = lint_imports(ROOT / "src")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("core/ids.py", "taskwire.hub", "Imports point down the layers"),
        ("wire/__init__.py", "taskwire.hub", "Imports point down the layers"),
        ("store/__init__.py", "taskwire.settings", "Imports point down the layers"),
        ("services/__init__.py", "taskwire.api", "Imports point down the layers"),
        ("services/__init__.py", "taskwire.wire", "Services know core, hub and store"),
        ("api/__init__.py", "taskwire.store", "Routes reach the store, brokers and providers through services only"),
        ("brokers/memory.py", "taskwire.hub.channel", "Brokers know the hub's port and core"),
        ("providers/__init__.py", "taskwire.services", "Providers know the services' ports and core"),
        ("providers/__init__.py", "taskwire.settings", "Providers know the services' ports and core"),
        ("client/__init__.py", "taskwire.hub.channel", "The client knows core"),
        ("somewhere_new.py", "taskwire.core", "Imports point down the layers"),
    ],
)  # fmt: skip
def test_a_forbidden_import_breaks_its_contract(
    tmp_path: Path, importer: str, imported: str, contract: str
) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    with (tmp_path / "src" / "taskwire" / importer).open("a") as module:
        module.write(f"\nimport {imported}\n")
    result = lint_imports(tmp_path / "src")
    assert result.returncode != 0
    assert f"{contract} BROKEN" in result.stdout, result.stdout + result.stderr
