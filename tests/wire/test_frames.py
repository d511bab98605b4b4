"""Outgoing frames: sizes at the borders of RFC 6455, section 5.2, and compression of RFC 7692."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from taskwire.wire.frames import PING, Deflate, deflate, text_frame


def parse(data: bytes, extensions: list[PerMessageDeflate] | None = None) -> Frame:
    """Read one whole frame as a client does."""
    reader = StreamReader()
    reader.feed_data(data)
    parser = Frame.parse(reader.read_exact, mask=False, extensions=extensions)
    try:
        next(parser)
    except StopIteration as done:
        frame: Frame = done.value
        assert not reader.buffer
        return frame
    raise AssertionError("the frame is longer than its bytes")


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_is_written_in_the_fewest_bytes(size: int, header: bytes) -> None:
    message = b"x" * size
    assert text_frame(message) == header + message
    frame = parse(text_frame(message))
    assert (frame.opcode, frame.fin, frame.rsv1, frame.data) == (Opcode.TEXT, True, False, message)


def test_the_shared_ping_is_a_ping_without_payload() -> None:
    frame = parse(PING)
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.PING, True, b"")


@given(st.binary(max_size=3000), st.integers(9, 15))
def test_every_compressed_message_reads_back(message: bytes, bits: int) -> None:
    framed = Deflate(bits, 0)(message)
    assert bytes(parse(framed, [PerMessageDeflate(True, True, bits, 15)]).data) == message


def test_a_message_that_shrinks_is_compressed_and_marked_by_rsv1() -> None:
    message = b'{"type":"taskProgress"}' * 50
    framed = Deflate(12, 100)(message)
    assert framed[0] == 0xC1
    assert len(framed) < len(message) / 5
    assert not framed.endswith(b"\x00\x00\xff\xff")


@pytest.mark.parametrize(
    "message",
    [b"", b"short", b"a" * 99, bytes(range(256))],
    ids=["empty", "short", "below", "incompressible"],
)
def test_what_would_not_gain_goes_as_it_is(message: bytes) -> None:
    assert Deflate(12, 100)(message) == text_frame(message)


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_the_window_is_no_larger_than_agreed(bits: int) -> None:
    """A client that keeps only so much history can inflate it."""
    words = bytes(range(200)) * 3 + b"-" * (1 << bits) + bytes(range(200)) * 3
    message = words * 4
    framed = Deflate(bits, 1)(message)
    assert framed[0] == 0xC1
    window = zlib.decompressobj(-bits)
    payload = framed[{126: 4, 127: 10}.get(framed[1], 2) :]
    assert window.decompress(payload + b"\x00\x00\xff\xff") == message


def test_each_message_is_compressed_by_itself() -> None:
    framing, message = Deflate(12, 1), b"the same words again and again " * 20
    assert framing(message) == framing(message)


def test_one_framing_serves_all_connections_of_a_window_size() -> None:
    assert deflate(12, 512) is deflate(12, 512)
    assert deflate(12, 512) is not deflate(11, 512)
    assert deflate(12, 512) is not deflate(12, 256)
