"""WebSocket framing (RFC 6455, section 5.2) as far as a load generator needs it: whole text messages, no extensions."""

import struct
from typing import Final

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FIN_TEXT: Final = 0x81
LENGTH_16: Final = 126
LENGTH_64: Final = 127


def encode(payload: bytes, opcode: int = TEXT) -> bytes:
    """A client frame. The masking key is zero: legal (section 5.3), and the payload needs no pass over its bytes."""
    size = len(payload)
    if size < LENGTH_16:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | LENGTH_16, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | LENGTH_64, size)
    return head + b"\0\0\0\0" + payload


def split(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The complete frames at the start of ``data`` as (opcode, payload), and the bytes left over."""
    frames = []
    at, end = 0, len(data)
    while end - at >= 2:
        size = data[at + 1]  # servers never mask, so the top bit is not set
        begin = at + 2
        if size == LENGTH_16:
            if end - at < 4:
                break
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            begin = at + 4
        elif size == LENGTH_64:
            if end - at < 10:
                break
            size = int.from_bytes(data[at + 2 : at + 10], "big")
            begin = at + 10
        if end - begin < size:
            break
        frames.append((data[at] & 0x0F, data[begin : begin + size]))
        at = begin + size
    return frames, data[at:]
