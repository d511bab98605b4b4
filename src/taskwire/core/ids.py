"""Unguessable, time-ordered identifiers: UUIDv7 in a short alphabet behind a prefix that names the kind."""

import os
import re
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case: no i, l, o, u

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
"""What any id in a request may look like; anything else is not looked up at all."""


def new_id(kind: str, now: int) -> str:
    """Make an id such as ``video_01k3...``: 48 bits of ``now`` (ms), then 82 random bits, as 26 characters.

    Ids made later sort later (to the millisecond), which keeps B-tree inserts local and serves as a page cursor.
    """
    number = (now << 82) | (int.from_bytes(os.urandom(11), "big") & ((1 << 82) - 1))
    return f"{kind}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))


def is_id(value: object) -> bool:
    """Whether ``value`` is text that may be an id of ours or of a producer's own."""
    return isinstance(value, str) and ID_PATTERN.fullmatch(value) is not None
