"""The identity of a request: the id in its headers and its trace's, for every line that is logged of it."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = b"x-request-id"
"""What a request may bring and every answer bears."""

_TRACE = b"traceparent"
# Short, printable and without spaces: what cannot break a line of the log, nor an answer's header.
_CLIENTS_OWN = re.compile(rb"[\x21-\x7e]{1,128}")
# W3C Trace Context, section 3.2: version, trace, parent, flags. Later versions may say more behind that.
_TRACEPARENT = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.DOTALL
)


class Identity(NamedTuple):
    """Of one request."""

    request: str
    """The client's own id where it can be used, else 32 hexadecimal digits that nobody had before."""
    trace: str = ""
    """The trace that the request is a part of, in 32 hexadecimal digits; empty where it names none."""

    @property
    def header(self) -> tuple[bytes, bytes]:
        """What an answer bears."""
        return HEADER, self.request.encode("ascii")


NOBODY = Identity("")

current: ContextVar[Identity] = ContextVar("identity", default=NOBODY)
"""Of the request that the running task answers."""


def identify(headers: Sequence[tuple[bytes, bytes]]) -> Identity:
    """What the headers of a request, their names in lower case, say that it is.

    An id that is given twice, is too long or holds what cannot be printed is replaced. A `traceparent` that
    is not as the standard has it is passed over.
    """
    request, trace = None, None
    for name, value in headers:
        if name == HEADER:
            request = value if request is None else b""
        elif name == _TRACE:
            trace = value if trace is None else b""
    return Identity(
        request.decode("ascii") if request and _CLIENTS_OWN.fullmatch(request) else _new(),
        _trace_id(trace) if trace else "",
    )


def _new() -> str:
    # Not a secret, and an answer must not wait for the kernel's random numbers.
    return f"{random.getrandbits(128):032x}"


def _trace_id(traceparent: bytes) -> str:
    matched = _TRACEPARENT.fullmatch(traceparent.strip(b" \t"))
    if matched is None or (matched[1] == b"00" and matched[3] is not None):
        return ""
    return matched[2].decode("ascii")
