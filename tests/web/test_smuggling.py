"""Heads and bodies that two readers could cut differently: none of them brings a second request in."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .serving import answer, received, run, serving

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n"
"""What an attacker wants to be taken for a request of its own."""
LAST = b"0\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"


def post(*lines: str, version: str = "HTTP/1.1", target: str = "/", host: str = "Host: test") -> bytes:
    given = [f"POST {target} {version}", host, *lines]
    return "\r\n".join([*filter(None, given), "", ""]).encode("latin-1")


SEEN: dict[int, list[tuple[str, bytes]]] = {}
"""By the client's port: what the application saw of a connection."""


class Exchange(NamedTuple):
    """What the application saw of one connection, and what came back over it."""

    seen: list[tuple[str, bytes]]
    """Path and body of each request, one that ends in an error with what it raised in place of a body."""
    statuses: list[int]
    is_closed: bool


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers once the body is complete, and keeps it by its connection."""
    seen = SEEN.setdefault(scope["client"][1], [])
    seen.append((scope["path"], b"unfinished"))
    number, body, more = len(seen) - 1, b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    seen[number] = (scope["path"], body)
    await answer(send, b"answered")


def _exchanged(cases: Mapping[str, bytes]) -> dict[str, Exchange]:
    """What becomes of these bytes, each on a connection of its own, at once and with nothing after them."""

    async def talk() -> dict[str, Exchange]:
        short: Any = dict.fromkeys(("header_timeout_s", "body_timeout_s", "idle_timeout_s"), 0.5)
        async with serving(_app, **short) as running:
            clients = [running.connect(content) for content in cases.values()]
            ports = [client.getsockname()[1] for client in clients]
            found = await asyncio.gather(*map(received, clients))
            return dict(zip(cases, map(_exchange, ports, found), strict=True))

    return run(talk())


def _exchange(port: int, found: bytes) -> Exchange:
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", found)]
    return Exchange(SEEN.pop(port, []), statuses, b"connection: close" in found.lower())


REFUSED = {
    # Two lengths
    "a length beside chunks": post("Content-Length: 4", CHUNKED) + LAST,
    "chunks beside a length": post(CHUNKED, "Content-Length: 4") + LAST,
    "two lengths": post("Content-Length: 0", f"Content-Length: {len(HIDDEN)}"),
    "one length twice": post("Content-Length: 0", "Content-Length: 0"),
    "a list of lengths": post("Content-Length: 0, 0"),
    # Lengths that are none
    "length with a sign": post("Content-Length: +5") + b"12345",
    "negative length": post("Content-Length: -1"),
    "length in hexadecimal": post("Content-Length: 0x5") + b"12345",
    "length beyond 64 bits": post("Content-Length: 18446744073709551617"),
    "empty length": post("Content-Length: "),
    "length with a gap": post("Content-Length: 1 0") + b"1234567890",
    "length with a blank before the colon": post("Content-Length : 5") + b"12345",
    # Transfer-Encoding written so that one reader sees chunks and another does not
    "coding with a blank before the colon": post("Transfer-Encoding : chunked") + LAST,
    "coding behind a vertical tab": post("Transfer-Encoding: \x0bchunked") + LAST,
    "coding that only ends like it": post("Transfer-Encoding: xchunked") + LAST,
    "coding in quotes": post('Transfer-Encoding: "chunked"') + LAST,
    "coding with a parameter": post("Transfer-Encoding: chunked;q=1") + LAST,
    "coding on a folded line": post("Transfer-Encoding:\r\n chunked") + LAST,
    "coding with a CR in it": post("Transfer-Encoding: chun\rked") + LAST,
    "coding with a list before it": post("Transfer-Encoding: identity, chunked") + LAST,
    "coding with a comma before it": post("Transfer-Encoding: ,chunked") + LAST,
    "coding with a comma behind it": post("Transfer-Encoding: chunked,") + LAST,
    "coding behind it": post("Transfer-Encoding: chunked, identity") + LAST,
    "compressed chunks": post("Transfer-Encoding: gzip, chunked") + LAST,
    "coding twice": post(CHUNKED, CHUNKED) + LAST,
    "coding behind another": post("Transfer-Encoding: x", CHUNKED) + LAST,
    "coding before another": post(CHUNKED, "Transfer-Encoding: x") + LAST,
    "no coding": post("Transfer-Encoding: identity"),
    "empty coding": post("Transfer-Encoding:"),
    "chunks in HTTP/1.0": post(CHUNKED, version="HTTP/1.0") + LAST,
    # Lines
    "folded line": post("X: a", " Content-Length: 5"),
    "folded line before the first": post(host="").replace(b"\r\n", b"\r\n Host: test\r\n", 1),
    "lines that end in LF": post("Content-Length: 0").replace(b"\r\n", b"\n"),
    "one line that ends in LF": post("X: a\nContent-Length: 5") + b"12345",
    "head that ends in LF": post()[:-2] + b"\n",
    "one line that ends in CR": post("X: a\rContent-Length: 5"),
    "NUL in a value": post("X: a\0b"),
    "NUL in a name": post("X\0: b"),
    "control character": post("X: \x01"),
    "line without a colon": post("Xabc"),
    "line without a name": post(": a"),
    "name that is none": post("X(: a"),
    "blank before a name": post(" X: a"),
    # Chunks
    "chunk size in C": post(CHUNKED) + b"0x0\r\n\r\n",
    "negative chunk": post(CHUNKED) + b"-1\r\n\r\n",
    "chunk size with a sign": post(CHUNKED) + b"+0\r\n\r\n",
    "blank before a chunk size": post(CHUNKED) + b" 0\r\n\r\n",
    "blank behind a chunk size": post(CHUNKED) + b"0 \r\n\r\n",
    "chunk beyond 64 bits": post(CHUNKED) + b"10000000000000000\r\n\r\n",
    "chunk size that ends in LF": post(CHUNKED) + b"0\n\r\n",
    "chunk size that ends in CR": post(CHUNKED) + b"0\r\r\n",
    "chunk without a size": post(CHUNKED) + b"\r\n" + LAST,
    "chunk longer than it says": post(CHUNKED) + b"2\r\nabc\r\n" + LAST,
    "chunk that ends in nothing": post(CHUNKED) + b"3\r\nabc" + LAST,
    "chunk that ends in LF": post(CHUNKED) + b"3\r\nabc\n" + LAST,
    "extension with LF": post(CHUNKED) + b"0;a=b\nc\r\n\r\n",
    "extension with a line in quotes": post(CHUNKED) + b'0;a="b\r\nc"\r\n\r\n',
    "extension with NUL": post(CHUNKED) + b"0;a\0\r\n\r\n",
    "length in a trailer": post(CHUNKED) + b"0\r\nContent-Length: 5\r\n\r\n",
    "coding in a trailer": post(CHUNKED) + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    # The first line
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9 with an empty line": b"GET /\r\n\r\n",
    "HTTP/0.9 that says so": post(version="HTTP/0.9"),
    "HTTP/1.2": post(version="HTTP/1.2"),
    "HTTP/2 in letters": post(version="HTTP/2.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version in small letters": post(version="http/1.1"),
    "tabs": post().replace(b"POST / HTTP", b"POST\t/\tHTTP"),
    "blank behind the version": post(version="HTTP/1.1 "),
    "blank in the target": post(target="/ x"),
    "control character in the target": post(target="/\x01"),
    "fragment in the target": post(target="/#x"),
    "method in small letters": post().replace(b"POST", b"post"),
    "target of a proxy": b"CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n",
    "target without a slash": post(target="x"),
    # Hosts
    "no host": post(host=""),
    "two hosts": post("Host: test"),
    "host that is none": post(host="Host: a b"),
    "host with a path": post(host="Host: test/x"),
    "host with a user": post(host="Host: x@test"),
    "host with a port that is none": post(host="Host: test:x"),
    "another host in the target": post(target="http://other/"),
    "a user in the target": post(target="http://test@other/"),
    # Offers to speak another protocol, whose head is read twice
    "two lengths beside an offer": post("Upgrade: h2c", "Connection: Upgrade", *["Content-Length: 0"] * 2),
    "chunks and a length beside an offer": post(
        "Upgrade: h2c", "Connection: Upgrade", CHUNKED, "Content-Length: 4"
    )
    + LAST,
    "compressed chunks beside an offer": post(
        "Upgrade: h2c", "Connection: Upgrade", "Transfer-Encoding: x, chunked"
    )
    + LAST,
}
"""Whatever follows any of these is read by nobody."""


@pytest.fixture(scope="module")
def exchanges() -> dict[str, Exchange]:
    """Of all cases of this file, by name."""
    cases = REFUSED | TWO | LAST_ONES
    return _exchanged({name: content + HIDDEN for name, content in cases.items()} | ONE | WAITED_FOR)


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(
    exchanges: dict[str, Exchange], name: str
) -> None:
    found = exchanges[name]
    assert found.statuses == [400]
    assert found.is_closed
    assert {body for _, body in found.seen} <= {b"unfinished"}, "no body of it is taken for a whole one"
    assert {path for path, _ in found.seen} <= {"/"}


LENGTH = f"Content-Length: {len(HIDDEN)}"
CHUNK = b"%x\r\n%s\r\n" % (len(HIDDEN), HIDDEN)
OFFER = "Connection: Upgrade", "Upgrade: h2c"
ONE = {
    "a request in a body": post(LENGTH) + HIDDEN,
    "a request in the body of a GET": post(LENGTH).replace(b"POST", b"GET") + HIDDEN,
    "a request in a chunk": post(CHUNKED) + CHUNK + LAST,
    "a request in a chunk, the coding in capitals": post("TRANSFER-ENCODING: CHUNKED") + CHUNK + LAST,
    "a request in a chunk, the coding behind a tab": post("Transfer-Encoding:\tchunked") + CHUNK + LAST,
    "a request in a chunk with an extension": post(CHUNKED) + CHUNK.replace(b"\r", b";a=b\r", 1) + LAST,
    "a request in a chunk with many zeros": post(CHUNKED) + b"0" * 40 + CHUNK + LAST,
    "a request in a body, the length with zeros": post(LENGTH.replace(": ", ": 000")) + HIDDEN,
    "a request in a body, the length between tabs": post(LENGTH.replace(": ", ":\t") + "\t") + HIDDEN,
    "a request in a body beside an offer": post(*OFFER, LENGTH) + HIDDEN,
    "a request in a chunk beside an offer": post(*OFFER, CHUNKED) + CHUNK + LAST,
    "a request in the body of HTTP/1.0": post(LENGTH, version="HTTP/1.0") + HIDDEN,
    "a request in a body, the target a URL": post(LENGTH, target="http://test/") + HIDDEN,
    "a request in a body to be asked for": post(LENGTH, "Expect: 100-continue") + HIDDEN,
}


@pytest.mark.parametrize("name", ONE)
def test_a_request_in_a_body_stays_a_body(exchanges: dict[str, Exchange], name: str) -> None:
    found = exchanges[name]
    assert found.seen == [("/", HIDDEN)]
    assert [status for status in found.statuses if status != 100] == [200]


TWO = {
    "behind an empty chunk": post(CHUNKED) + LAST,
    "behind trailers": post(CHUNKED) + b"0\r\nX: a\r\n\r\n",
    "behind an extension": post(CHUNKED) + b"0;a=b\r\n\r\n",
    "behind empty lines": post("Content-Length: 0") + b"\r\n\r\n",
    "without a body": post(),
    "with a name that is only like another": post("Transfer_Encoding: chunked"),
    "behind an offer": post(*OFFER),
    "with a host of its own": post(host="Host: [::1]:8000"),
    "without a port": post(host="Host: test:"),
    "with a URL": post(target="http://test/"),
}


LAST_ONES = {
    "behind one that ends its connection": post("Connection: close"),
    "behind one of HTTP/1.0": post(version="HTTP/1.0", host=""),
}
WAITED_FOR = {
    "a chunk of the largest size": post(CHUNKED) + b"ffffffffffffffff\r\nabc\r\n" + LAST + HIDDEN,
}


@pytest.mark.parametrize("name", TWO)
def test_a_request_behind_another_is_a_request(exchanges: dict[str, Exchange], name: str) -> None:
    """So that the tests above do not pass of a server that never reads on."""
    found = exchanges[name]
    assert (found.seen, found.statuses) == ([("/", b""), ("/hidden", b"")], [200, 200])


@pytest.mark.parametrize("name", LAST_ONES)
def test_what_follows_the_last_answer_is_read_by_nobody(exchanges: dict[str, Exchange], name: str) -> None:
    assert exchanges[name].seen == [("/", b"")]


def test_a_chunk_that_never_ends_brings_nothing_else_in(exchanges: dict[str, Exchange]) -> None:
    (found,) = (exchanges[name] for name in WAITED_FOR)
    assert found.seen == [("/", b"unfinished")]
    assert 200 not in found.statuses
