"""The example messages of ``protocol/golden``, which the tests of every language read."""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.services import ROOT


@dataclass(frozen=True)
class Golden:
    """One example. ``message`` is the JSON value; ``text`` what is on the wire where that is no JSON of a message."""

    name: str
    description: str
    sender: str
    message: Any = None
    text: str | None = None
    means: dict[str, Any] | None = None  # of a client's message: the command it stands for
    refused: dict[str, Any] | None = None  # of a client's message: the error that answers it

    @property
    def wire(self) -> str:
        return json.dumps(self.message) if self.text is None else self.text


def golden(contract: str) -> list[Golden]:
    """Every example of a contract, by name."""
    found = []
    for path in sorted((ROOT / "protocol" / "golden" / contract).glob("*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        value["sender"] = value.pop("from")
        found.append(Golden(path.stem, **value))
    return found
