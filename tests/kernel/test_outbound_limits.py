"""What answers of customers' addresses may cost us, and what is made of those that are none."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.outbound import Answer, OutboundError
from tests.kernel.outbound_support import OK, begin_with, local, post, receiving

# What they may cost


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_whoever_says_nothing_has_the_connection_closed_when_time_is_up(scheme: str) -> None:
    # The client is not closed, so it is the request that has to leave nothing open.
    client = local(timeout=0.2)
    async with receiving(begin_with(b"")) as receiver:
        with pytest.raises(OutboundError, match=r"^There was no whole answer within 0\.2 seconds\.$"):
            await post(client, receiver.url(scheme=scheme))
        assert len(receiver.connections) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_request_that_is_cancelled_leaves_no_connection_open(scheme: str) -> None:
    client = local()
    async with receiving(begin_with(b"")) as receiver:
        request = asyncio.create_task(post(client, receiver.url(scheme=scheme)))
        await receiver.spoken_to.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_time_that_is_up_at_any_step_leaves_nothing_open_and_the_next_request_is_answered() -> None:
    client = local(timeout=2)
    async with receiving(OK) as receiver:
        # More than once, since each connection that is forgotten takes one of the places away.
        for steps in [*range(80)] * 6:
            request = asyncio.create_task(post(client, receiver.url()))
            for _ in range(steps):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.wait([request])
        assert (await post(client, receiver.url())).body == b"ok"
        await client.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnearly a",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    ],
)
async def test_an_answer_that_never_ends_is_given_up_in_time(start: bytes) -> None:
    client = local(timeout=0.2)
    async with receiving(begin_with(start)) as receiver:
        with pytest.raises(OutboundError, match=r"no whole answer within 0\.2 seconds"):
            await post(client, receiver.url())


@pytest.mark.parametrize(
    ("head", "forever"),
    [
        (b"Content-Length: 99999999999", b"a" * 4096),
        (b"Transfer-Encoding: chunked", b"1000\r\n" + b"a" * 4096 + b"\r\n"),
        (b"Transfer-Encoding: chunked", b"1\r\na\r\n" * 100),
        (b"Connection: close", b"a" * 4096),
    ],
)
async def test_of_an_endless_body_the_first_bytes_are_read(head: bytes, forever: bytes) -> None:
    client = local()
    async with receiving(begin_with(b"HTTP/1.1 500 Oh\r\n" + head + b"\r\n\r\n", forever)) as receiver:
        answer = await post(client, receiver.url())
        assert (answer.status, answer.body, answer.is_cut) == (500, b"a" * 1000, True)


async def test_a_body_of_just_the_allowed_size_is_whole() -> None:
    for size, is_cut in ((1000, False), (1001, True)):
        whole = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{'a' * size}".encode()
        async with receiving(whole) as receiver, local() as client:
            answer = await post(client, receiver.url())
        assert (len(answer.body), answer.is_cut) == (1000, is_cut)


@pytest.mark.parametrize(
    ("start", "forever", "words"),
    [
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, "too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 9999 + b"\r\na\r\n", "too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x" * 4096, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-More: 1\r\n" * 100, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n" * 100, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 4096, "not HTTP"),
        (b"HTTP/1.1 200 ", b"x" * 4096, "not HTTP"),
    ],
)
async def test_what_is_endless_besides_the_body_is_given_up_long_before_time_is_up(
    start: bytes, forever: bytes, words: str
) -> None:
    client = local(timeout=60)
    async with receiving(begin_with(start, forever)) as receiver:
        async with asyncio.timeout(10):
            with pytest.raises(OutboundError, match=words):
                await post(client, receiver.url())


# What is no answer


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 000 Zero\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_said_so(answer: bytes) -> None:
    async with receiving(answer) as receiver, local() as client:
        with pytest.raises(OutboundError, match=r"^What came back was not HTTP, or ended early\.$"):
            await post(client, receiver.url())


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnea"])
async def test_a_connection_that_is_lost_is_said_so(start: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        writer.transport.abort()

    async with receiving(answer) as receiver, local() as client:
        with pytest.raises(OutboundError, match=r"^(The connection was lost|What came back .* ended early)"):
            await post(client, receiver.url())


async def test_a_port_where_nobody_listens_is_said_so() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with local() as client:
            with pytest.raises(OutboundError, match=r"^The connection could not be made\.$"):
                await post(client, f"http://127.0.0.1:{bound.getsockname()[1]}/")


_LINES = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 204 ", b"HTTP/1.1 100", b"HTTP/1.1 999 x", b"Content-Length: 3"),
    *(b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Connection: close", b"Upgrade: x", b" folded"),
    *(b"3", b"0", b"abc", b"X: \xff", b""),
)


@given(st.lists(st.sampled_from(_LINES) | st.binary(max_size=9), max_size=12).map(b"\r\n".join))
@settings(max_examples=100, deadline=None)
async def test_whatever_comes_back_is_an_answer_or_an_error_for_the_customer(start: bytes) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + start)
        writer.close()
        raise ConnectionAbortedError

    async with receiving(answer) as receiver, local() as client:
        with contextlib.suppress(OutboundError):
            assert isinstance(await post(client, receiver.url()), Answer)
    assert len(receiver.heads) == 1
