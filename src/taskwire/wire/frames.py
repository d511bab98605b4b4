"""Server-to-client WebSocket frames, built once and written to many (RFC 6455 section 5.2, RFC 7692)."""

import zlib
from functools import cache

PING = b"\x89\x00"
"""A ping without payload: one object for every connection."""


def text_frame(message: bytes, first: int = 0x81) -> bytes:
    """One unmasked frame holding a whole text message. ``first`` is the first byte: FIN, reserved bits, opcode."""
    length = len(message)
    if length < 126:
        return bytes((first, length)) + message
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + message
    return bytes((first, 127)) + length.to_bytes(8, "big") + message


class Deflate:
    """permessage-deflate with ``server_no_context_takeover``: each message is compressed by itself.

    So the same frame serves every connection with the same window. Messages below ``min_size``, and those that would
    grow, go as they are.
    """

    __slots__ = ("bits", "min_size")

    def __init__(self, bits: int, min_size: int) -> None:
        self.bits = bits
        self.min_size = min_size

    def __call__(self, message: bytes) -> bytes:
        if len(message) < self.min_size:
            return text_frame(message)
        compressor = zlib.compressobj(5, zlib.DEFLATED, -self.bits, 5)
        # RFC 7692 section 7.2.1: flush to a byte boundary and leave the last four octets, 00 00 ff ff, out.
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return text_frame(message) if len(data) - 4 >= len(message) else text_frame(data[:-4], 0xC1)


@cache
def deflate(bits: int, min_size: int) -> Deflate:
    """The one framing for a window size; groups compare framings by identity."""
    return Deflate(bits, min_size)
