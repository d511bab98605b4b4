"""The server's side of a WebSocket connection, without any I/O: hand-made bytes in, events and bytes out."""

import base64
import itertools
import logging
import os
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.uri import parse_uri

from taskwire.wire.frames import deflate, text_frame
from taskwire.wire.websocket import (
    BinaryMessage,
    Closed,
    OversizedMessage,
    TextMessage,
    WebSocketEvent,
    WebSocketSession,
)

QUIET = logging.getLogger("tests.websocket")
QUIET.setLevel(logging.CRITICAL)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.2
TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def handshake(*lines: str, target: str = "/ws", key: str = KEY) -> bytes:
    """A client's opening handshake; ``lines`` are added to its header."""
    return "\r\n".join(
        (
            f"GET {target} HTTP/1.1",
            "Host: media.example",
            "Upgrade: websocket",
            "Connection: keep-alive, Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *lines,
            "",
            "",
        )
    ).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x1a\x2b\x3c\x4d",
) -> bytes:
    """A client's frame, RFC 6455 section 5.2, made by hand so that it can be wrong."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    length, bit = len(payload), 0x80 if mask is not None else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + length.to_bytes(8, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(mask), strict=False))


def make_session(
    max_size: int = 1000, offer_deflate: bool = True, min_size: int = 1, keep: int | None = None
) -> WebSocketSession:
    return WebSocketSession(
        max_size=max_size, offer_deflate=offer_deflate, deflate_min_size=min_size, logger=QUIET, keep=keep
    )


def opened(*lines: str, **options: Any) -> WebSocketSession:
    """A session after the handshake."""
    session = make_session(**options)
    (request,) = session.receive(handshake(*lines))
    assert isinstance(request, Request)
    assert session.accept(request)
    session.take()
    return session


def closing(session: WebSocketSession) -> tuple[int, str]:
    """Code and reason of the close frame that the session wants to write, after whatever comes before it."""
    data = session.take()
    while data[0] & 0x0F != CLOSE:
        data = data[2 + data[1] :]
    assert data[1] == len(data) - 2
    return int.from_bytes(data[2:4], "big"), data[4:].decode()


# The handshake


def test_the_handshake_is_answered_as_in_the_rfc() -> None:
    session = make_session()
    (request,) = session.receive(handshake(target="/ws?x=1"))
    assert isinstance(request, Request)
    assert request.path == "/ws?x=1"
    assert session.take() == b""
    assert session.accept(request)
    lines = session.take().decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in lines
    assert not [
        line for line in lines if line.startswith(("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"))
    ]
    assert session.open
    assert not session.done


def test_the_handshake_may_come_byte_by_byte() -> None:
    session, found = make_session(), []
    for byte in handshake():
        found += session.receive(bytes([byte]))
    (request,) = found
    assert isinstance(request, Request)
    assert session.accept(request)
    session.take()
    assert session.receive(frame(TEXT, b"hello")) == [TextMessage("hello")]


def test_a_subprotocol_is_named_in_the_answer() -> None:
    session = make_session()
    (request,) = session.receive(handshake("Sec-WebSocket-Protocol: other, taskwire.v1"))
    assert isinstance(request, Request)
    assert session.accept(request, "taskwire.v1")
    assert b"Sec-WebSocket-Protocol: taskwire.v1\r\n" in session.take()


@pytest.mark.parametrize(
    ("wrong", "right", "status"),
    [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 400),
        (f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Key: short", 400),
        (f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Key: {KEY}", 400),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: keep-alive, Upgrade", "Connection: close", 426),
        ("Host: media.example", "Host: media.example\r\nOrigin: http://a\r\nOrigin: http://b", 400),
    ],
)
def test_a_bad_handshake_is_refused(wrong: str, right: str, status: int) -> None:
    session = make_session()
    (request,) = session.receive(handshake().replace(wrong.encode(), right.encode()))
    assert isinstance(request, Request)
    assert not session.accept(request)
    assert session.take().startswith(f"HTTP/1.1 {status} ".encode())
    assert session.done
    assert not session.open


def test_a_rejection_carries_its_headers_and_text() -> None:
    session = make_session()
    session.receive(handshake())
    session.reject(503, "The server is restarting.\n", [("Retry-After", "7")])
    head, _, body = session.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nRetry-After: 7" in head
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert body == b"The server is restarting.\n"
    assert session.done


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n", b"\xff" * 9000]
)
def test_what_is_no_http_ends_the_connection(data: bytes) -> None:
    session = make_session()
    assert session.receive(data) == []
    assert session.done


# Messages


def test_text_and_binary_messages() -> None:
    session = opened()
    data = frame(TEXT, "Grüße 🎬".encode()) + frame(BINARY, b"\x00\xff") + frame(TEXT)
    assert session.receive(data) == [TextMessage("Grüße 🎬"), BinaryMessage(b"\x00\xff"), TextMessage("")]
    assert session.take() == b""


@pytest.mark.parametrize("size", [125, 126, 65535, 65536])
def test_lengths_at_the_borders(size: int) -> None:
    session = opened(max_size=70_000)
    assert session.receive(frame(TEXT, b"x" * size)) == [TextMessage("x" * size)]


def test_fragments_make_one_message_with_control_frames_between() -> None:
    session = opened()
    letters = "añ🎬b".encode()
    events: list[WebSocketEvent] = []
    for number, byte in enumerate(letters):
        last = number == len(letters) - 1
        events += session.receive(frame(CONT if number else TEXT, bytes([byte]), fin=last))
        if not last:
            events += session.receive(frame(PING, b"%d" % number) + frame(PONG, b"unasked"))
            assert session.take() == b"\x8a\x01%d" % number
    assert events == [TextMessage("añ🎬b")]


def test_a_binary_message_stays_binary_over_its_fragments() -> None:
    session = opened()
    data = (
        frame(BINARY, b"\xff", fin=False)
        + frame(CONT, b"\xfe")
        + frame(TEXT, b"t", fin=False)
        + frame(CONT, b"u")
    )
    assert session.receive(data) == [BinaryMessage(b"\xff\xfe"), TextMessage("tu")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5), st.randoms())
def test_messages_arrive_whole_however_they_are_cut(texts: list[str], random: Any) -> None:
    session, found = opened(), []
    wire = b""
    for text in texts:
        data = text.encode()
        cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(4)))
        pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
        for number, piece in enumerate(pieces):
            wire += frame(
                CONT if number else TEXT, piece, fin=number == len(pieces) - 1, mask=random.randbytes(4)
            )
    while wire:
        size = random.randrange(1, 20)
        found += session.receive(wire[:size])
        wire = wire[size:]
    assert found == [TextMessage(text) for text in texts]


def test_empty_fragments_take_no_memory() -> None:
    session = opened()
    session.receive(frame(TEXT, b"a", fin=False))
    for _ in range(100):
        session.receive(frame(CONT, b"", fin=False) * 50)
    assert bytes(session._held or b"") == b"a"
    assert session.receive(frame(CONT, b"b")) == [TextMessage("ab")]


@pytest.mark.parametrize(
    "data",
    [b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"ok\xff"],
    ids=lambda data: data.hex(),
)
@pytest.mark.parametrize("fragments", [1, 2])
def test_text_that_is_not_utf8_fails_the_connection(data: bytes, fragments: int) -> None:
    session = opened()
    if fragments == 1:
        wire = frame(TEXT, data)
    else:
        wire = frame(TEXT, data[:1], fin=False) + frame(CONT, data[1:])
    events = session.receive(wire + frame(TEXT, b"after"))
    assert events == [Closed(1007, "text is not UTF-8")]
    assert closing(session)[0] == 1007
    assert session.done
    assert session.receive(frame(TEXT, b"after")) == []


@pytest.mark.parametrize(
    "wire",
    [
        frame(TEXT, b"x" * 1001),
        frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 401),
        frame(BINARY, b"x" * 1001)[:12],  # refused by its length, before the rest has come
    ],
    ids=["whole", "fragments", "announced"],
)
def test_what_is_too_big_fails_the_connection(wire: bytes) -> None:
    session = opened()
    (event,) = session.receive(wire)
    assert isinstance(event, Closed)
    assert event.code == closing(session)[0] == 1009
    assert session.done


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("cuts", [[], [50], [99, 100, 101], [500, 600]])
def test_a_message_larger_than_is_kept_is_read_to_its_end_and_reported(opcode: int, cuts: list[int]) -> None:
    session = opened(keep=100)
    data = b"\xff" * 700  # no UTF-8 either, but that is not looked at
    pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]
    wire = b""
    for number, piece in enumerate(pieces):
        wire += frame(CONT if number else opcode, piece, fin=number == len(pieces) - 1) + frame(PING)
    assert session.receive(wire) == [OversizedMessage()]
    assert session.receive(frame(TEXT, b"x" * 100)) == [TextMessage("x" * 100)]
    assert session.receive(frame(TEXT, b"x" * 101)) == [OversizedMessage()]
    assert session.open


def test_of_a_message_that_is_not_kept_nothing_is_held() -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate", keep=1000, max_size=8_000_000)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(4_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    session.receive(frame(TEXT, bomb, fin=False, rsv=4))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 200_000
    assert session.receive(frame(CONT, b"")) == [OversizedMessage()]


def test_the_largest_message_is_taken() -> None:
    session = opened()
    assert session.receive(frame(TEXT, b"x" * 1000)) == [TextMessage("x" * 1000)]


def test_a_bomb_is_not_inflated_beyond_the_limit() -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate")
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(bytes(10_000_000)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    small = opened("Sec-WebSocket-Extensions: permessage-deflate", max_size=20_000)
    for each in (session, small):
        (event,) = each.receive(frame(BINARY, bomb[:-4], rsv=4))
        assert isinstance(event, Closed)
        assert event.code == 1009


@pytest.mark.parametrize(
    "wire",
    [
        frame(0x3, b""),  # reserved opcodes
        frame(0xB, b""),
        frame(TEXT, b"a", rsv=4),  # no extension agreed on
        frame(TEXT, b"a", rsv=2),
        frame(TEXT, b"a", mask=None),  # a client must mask
        frame(PING, b"", fin=False),
        frame(PING, b"x" * 126),
        frame(CONT, b"a"),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, (999).to_bytes(2, "big")),
        frame(CLOSE, (1005).to_bytes(2, "big")),
    ],
)
def test_a_violation_of_the_protocol_fails_the_connection(wire: bytes) -> None:
    session = opened()
    (event,) = session.receive(wire)
    assert isinstance(event, Closed)
    assert event.code == closing(session)[0] == 1002
    assert session.done


def test_messages_before_a_violation_are_given() -> None:
    session = opened()
    first, second = session.receive(frame(TEXT, b"good") + frame(0x3))
    assert first == TextMessage("good")
    assert isinstance(second, Closed)


# Control frames and closing


def test_a_ping_is_answered_with_its_payload() -> None:
    session = opened()
    assert session.receive(frame(PING, b"x" * 125)) == []
    assert session.take() == b"\x8a\x7d" + b"x" * 125


@pytest.mark.parametrize(
    ("payload", "closed"),
    [
        ((1000).to_bytes(2, "big") + b"bye", Closed(1000, "bye")),
        ((1001).to_bytes(2, "big"), Closed(1001, "")),
        ((4999).to_bytes(2, "big") + "für immer".encode(), Closed(4999, "für immer")),
        (b"", Closed(1005, "")),
    ],
)
def test_a_close_is_echoed(payload: bytes, closed: Closed) -> None:
    session = opened()
    assert session.receive(frame(CLOSE, payload) + frame(TEXT, b"after")) == [closed]
    assert session.take() == bytes([0x88, len(payload)]) + payload
    assert session.done
    assert not session.open
    assert session.receive(frame(TEXT, b"after")) == []


def test_a_close_whose_reason_is_not_utf8_fails_the_connection() -> None:
    session = opened()
    (event,) = session.receive(frame(CLOSE, b"\x03\xe8\xff"))
    assert isinstance(event, Closed)
    assert event.code == 1007


def test_our_close_waits_for_the_answer() -> None:
    session = opened()
    session.close(1012, "server restarting")
    assert not session.open
    assert closing(session) == (1012, "server restarting")
    assert not session.done
    session.close(1000, "again")
    assert session.take() == b""
    assert session.receive(frame(CLOSE, (1012).to_bytes(2, "big"))) == [Closed(1012, "")]
    assert session.take() == b""
    assert session.done


def test_the_end_of_the_stream_without_a_close_is_1006() -> None:
    session = opened()
    assert session.receive_eof() == [Closed(1006, "")]
    assert session.done


def test_the_end_of_the_stream_after_a_close_is_no_second_close() -> None:
    session = opened()
    session.receive(frame(CLOSE, (1000).to_bytes(2, "big")))
    assert session.receive_eof() == []


# Compression


@pytest.mark.parametrize(
    ("offer", "bits", "answer"),
    [
        ("permessage-deflate", 12, "server_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits", 12, "server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=15", 12, "server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=10", 10, "server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=9", 9, "server_max_window_bits=9"),
        ("permessage-deflate; client_max_window_bits=8", 12, "client_max_window_bits=8"),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            12,
            "server_max_window_bits=12",
        ),
        ("permessage-deflate; unknown=1, permessage-deflate", 12, "server_max_window_bits=12"),
    ],
)
def test_compression_is_agreed_on(offer: str, bits: int, answer: str) -> None:
    session = make_session(min_size=64)
    (request,) = session.receive(handshake(f"Sec-WebSocket-Extensions: {offer}"))
    assert isinstance(request, Request)
    assert session.accept(request)
    (header,) = [
        line for line in session.take().decode().split("\r\n") if line.startswith("Sec-WebSocket-Ext")
    ]
    assert answer in header
    assert "server_no_context_takeover" in header
    assert "client_no_context_takeover" in header
    assert header.count("permessage-deflate") == 1
    assert session.framing is deflate(bits, 64)


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=8",  # zlib cannot compress with a window of 256 bytes
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=7",
        "x-webkit-deflate-frame",
    ],
)
def test_an_offer_that_cannot_be_met_is_declined(offer: str) -> None:
    session = opened(f"Sec-WebSocket-Extensions: {offer}")
    assert session.framing is text_frame
    assert session.open


def test_compression_can_be_switched_off() -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate", offer_deflate=False)
    assert session.framing is text_frame


CLIENTS = {
    "default": ClientPerMessageDeflateFactory(),
    "small-window": ClientPerMessageDeflateFactory(server_max_window_bits=9),
    "own-window": ClientPerMessageDeflateFactory(client_max_window_bits=10),
    "takeover": ClientPerMessageDeflateFactory(
        server_no_context_takeover=False, client_no_context_takeover=False, server_max_window_bits=15
    ),
}


@pytest.mark.parametrize("factory", CLIENTS.values(), ids=CLIENTS.keys())
def test_a_real_client_reads_shared_frames_and_is_read(factory: ClientPerMessageDeflateFactory) -> None:
    client = ClientProtocol(parse_uri("ws://localhost/ws"), extensions=[factory], max_size=None)
    client.send_request(client.connect())
    session = make_session(max_size=100_000)
    (request,) = session.receive(b"".join(client.data_to_send()))
    assert isinstance(request, Request)
    assert session.accept(request)
    client.receive_data(session.take())
    assert client.handshake_exc is None
    messages = [("word " * size).encode() + os.urandom(8).hex().encode() for size in (0, 1, 30, 5000, 30)]
    for message in messages:
        client.receive_data(session.framing(message))
    received = [event.data for event in client.events_received() if isinstance(event, Frame)]
    assert received == messages
    assert client.parser_exc is None
    for message in messages:
        client.send_text(message)
    assert session.receive(b"".join(client.data_to_send())) == [
        TextMessage(each.decode()) for each in messages
    ]


def test_a_compressed_message_in_fragments() -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate")
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = (compressor.compress(b"word " * 100) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    wire = frame(TEXT, data[:5], fin=False, rsv=4) + frame(PING) + frame(CONT, data[5:])
    assert session.receive(wire) == [TextMessage("word " * 100)]


def test_garbage_in_place_of_compressed_data_fails_the_connection() -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate")
    (event,) = session.receive(frame(TEXT, b"\xff\xff\xff\xff", rsv=4))
    assert isinstance(event, Closed)
    assert event.code == 1002


# Whatever comes

frames_ = st.builds(
    frame, st.integers(0, 15), st.binary(max_size=200), fin=st.booleans(), rsv=st.integers(0, 7),
    mask=st.none() | st.binary(min_size=4, max_size=4),
)  # fmt: skip
likely = st.builds(
    frame, st.sampled_from([TEXT, TEXT, CONT, BINARY, PING, CLOSE]), st.binary(max_size=20) | st.just(b"\x03\xe8"),
    fin=st.booleans(), rsv=st.sampled_from([0, 0, 0, 4]),
)  # fmt: skip
anything = st.one_of(likely, likely, frames_, st.binary(max_size=300))


@settings(max_examples=500)
@given(st.lists(anything, max_size=12), st.booleans(), st.booleans(), st.booleans())
def test_no_bytes_do_worse_than_to_end_the_connection(
    wire: list[bytes], compressed: bool, together: bool, we_close: bool
) -> None:
    session = opened("Sec-WebSocket-Extensions: permessage-deflate", offer_deflate=compressed, max_size=500)
    found: list[WebSocketEvent] = []
    for number, data in enumerate([b"".join(wire)] if together else wire):
        found += session.receive(data)
        session.take()
        if we_close and number == 3:
            session.close(1000, "enough")
    found += session.receive_eof()
    session.take()
    closes = [event for event in found if isinstance(event, Closed)]
    assert len(closes) == 1
    assert found[-1] is closes[0]
    assert session.done
    assert not session.open


@given(
    st.one_of(st.binary(max_size=400), st.lists(st.binary(max_size=40), max_size=6).map(b"\r\n".join)),
    st.integers(0, 400),
)
def test_no_bytes_in_place_of_a_handshake_do_any_harm(garbage: bytes, place: int) -> None:
    good = handshake("Sec-WebSocket-Extensions: permessage-deflate")
    for data in (garbage, good[:place] + garbage + good[place:], good[:place] + garbage):
        session = make_session()
        for event in session.receive(data):
            if isinstance(event, Request):
                session.accept(event)
        session.take()
        session.receive_eof()
        assert session.done


def test_before_the_answer_to_the_handshake_nothing_may_be_sent() -> None:
    session = make_session()
    session.receive(handshake())
    assert not session.open


@pytest.mark.parametrize("behind", [frame(0x3), frame(CLOSE), frame(TEXT, b"x" * 2000)])
@pytest.mark.parametrize("answer", ["accept", "reject"])
def test_what_comes_behind_the_handshake_may_end_the_connection_before_the_answer(
    behind: bytes, answer: str
) -> None:
    session = make_session()
    request, closed = session.receive(handshake() + behind)
    assert isinstance(closed, Closed)
    if answer == "accept":
        assert isinstance(request, Request)
        assert not session.accept(request)
    else:
        session.reject(404, "nothing here")
    assert session.done


def test_a_client_that_does_not_wait_for_the_handshake_is_served() -> None:
    session = make_session()
    request, message = session.receive(handshake() + frame(TEXT, b"early\r\n\r\n", mask=bytes(4)))
    assert isinstance(request, Request)
    assert message == TextMessage("early\r\n\r\n")
    assert session.accept(request)
    assert session.receive(frame(TEXT, b"next")) == [TextMessage("next")]


def test_the_key_of_the_rfc_is_what_it_says() -> None:
    assert base64.b64decode(KEY) == b"the sample nonce"


def test_frames_made_here_are_those_the_library_makes() -> None:
    for size in (0, 5, 125, 126, 65536):
        made = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True)
        header = len(made) - size
        mask = made[header - 4 : header]
        assert frame(TEXT, b"x" * size, mask=mask) == made
