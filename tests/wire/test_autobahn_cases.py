"""What the Autobahn suite found in the WebSocket session, each under the number of its case."""

import logging

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CONT, PING, TEXT, Close, Frame, Opcode
from websockets.http11 import Request
from websockets.uri import parse_uri

from taskwire.wire.websocket import Closed, TextMessage, WebSocketSession

QUIET = logging.getLogger("tests.autobahn")


def masked(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    """A frame as a client writes it."""
    return Frame(opcode, data, fin).serialize(mask=True)


def close(code: int, reason: str = "") -> bytes:
    return masked(Opcode.CLOSE, Close(code, reason).serialize())


@pytest.fixture(params=[False, True], ids=["plain", "deflate"])
def session(request: pytest.FixtureRequest) -> WebSocketSession:
    """A session after the handshake; the frames of the tests are uncompressed in both."""
    extensions = [ClientPerMessageDeflateFactory()] if request.param else None
    client = ClientProtocol(parse_uri("ws://localhost/"), extensions=extensions)
    client.send_request(client.connect())
    session = WebSocketSession(max_size=1000, offer_deflate=True, deflate_min_size=1, logger=QUIET)
    (handshake,) = session.receive(b"".join(client.data_to_send()))
    assert isinstance(handshake, Request)
    assert session.accept(handshake)
    assert (b"permessage-deflate" in session.take()) is request.param
    return session


@pytest.mark.parametrize("together", [True, False])
def test_a_close_between_the_fragments_of_a_message_is_answered_in_kind_7_1_5(
    session: WebSocketSession, together: bool
) -> None:
    frames = [masked(TEXT, b"one", fin=False), close(1000, "bye"), masked(CONT, b"two")]
    events = []
    for data in [b"".join(frames)] if together else frames:
        events += session.receive(data)
    assert events == [Closed(1000, "bye")]  # and no message, neither whole nor in part
    assert session.take() == b"\x88\x05\x03\xe8bye"
    assert session.done


def test_a_close_without_a_code_between_fragments_is_answered_in_kind(session: WebSocketSession) -> None:
    assert session.receive(masked(TEXT, b"one", fin=False) + masked(Opcode.CLOSE, b"")) == [Closed(1005, "")]
    assert session.take() == b"\x88\x00"
    assert session.done


def test_an_invalid_close_between_fragments_is_a_protocol_error(session: WebSocketSession) -> None:
    (event,) = session.receive(masked(TEXT, b"one", fin=False) + masked(Opcode.CLOSE, b"\x03"))
    assert isinstance(event, Closed)
    assert event.code == 1002
    assert session.take()[2:4] == (1002).to_bytes(2, "big")
    assert session.done


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param(masked(TEXT, b"one", fin=False) + masked(TEXT, b"two"), 1002, id="5.18"),
        pytest.param(masked(CONT, b"one"), 1002, id="5.9"),
        pytest.param(
            masked(TEXT, bytes(600), fin=False) + masked(PING, b"") + masked(CONT, bytes(600)),
            1009,
            id="too big",
        ),
    ],
)
def test_other_frames_keep_to_the_message_under_way(
    session: WebSocketSession, frames: bytes, code: int
) -> None:
    (event,) = session.receive(frames)
    assert isinstance(event, Closed)
    assert event.code == code


@pytest.mark.parametrize("case", ["5.6", "5.20"])
def test_pongs_may_be_written_before_the_reply_to_the_message_around_them(
    session: WebSocketSession, case: str
) -> None:
    frames = [masked(TEXT, b"one", fin=False), masked(PING, b"a"), masked(CONT, b"two")]
    pongs = b"\x8a\x01a"
    if case == "5.20":
        frames[2:] = [masked(CONT, b"", fin=False), masked(PING, b"b"), masked(CONT, b"two")]
        pongs += b"\x8a\x01b"
    assert session.receive(b"".join(frames)) == [TextMessage("onetwo")]
    assert session.open  # so that what is taken now holds no close, after which no reply could follow
    assert session.take() == pongs
    assert session.take() == b""


def test_a_session_that_has_a_close_to_write_is_not_open(session: WebSocketSession) -> None:
    events = session.receive(masked(TEXT, b"one") + masked(PING, b"") + close(1000))
    assert events == [TextMessage("one"), Closed(1000, "")]
    assert not session.open  # the replies go first, then this
    assert session.take() == b"\x8a\x00\x88\x02\x03\xe8"
