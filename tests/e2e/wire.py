"""HTTP by hand, for what no HTTP library sends."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PREDICT = "/v1/models/digits/predict"


class Reply(NamedTuple):
    """One answer as it came over the connection."""

    status: int
    headers: Mapping[str, str]
    body: Any
    """Parsed, where it is JSON."""


def head(*lines: str, method: str = "POST", address: str = PREDICT) -> bytes:
    """The head of a request to predict."""
    given = [f"{method} {address} HTTP/1.1", "Host: localhost", "Content-Type: image/png", *lines]
    return "\r\n".join([*given, "", ""]).encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def reset(connection: socket.socket) -> None:
    """Close with a reset instead of a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class _Response(HTTPResponse):
    """Reads no byte too many: what follows an answer belongs to the next one."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.fp.close()
        self.fp = connection.makefile("rb", buffering=1)


def reply(connection: socket.socket) -> Reply:
    """Read exactly one answer."""
    with closing(_Response(connection)) as response:
        response.begin()
        content = response.read()
        headers = {name.lower(): value for name, value in response.headers.items()}
        is_json = "json" in headers.get("content-type", "")
        return Reply(response.status, headers, json.loads(content) if is_json else content)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed; waits until it closes or sends."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
