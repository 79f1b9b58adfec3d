"""The head of a request: what the parser lets pass, and what two readers could take for two requests."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from httptools import HttpParserError, parse_url

from service.errors import InvalidHttp

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSIONS = {"1.1", "1.0"}
_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[A-Za-z0-9_:.%-]+\])?(?::[0-9]{0,5})?")


def refuse_ambiguous(version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise `InvalidHttp` for what a proxy in front of the service may have understood otherwise.

    `version` is such as "1.1", names of `headers` are in lower case. Refused are: versions other than 1.0
    and 1.1; a `Transfer-Encoding` other than chunked alone, or in HTTP/1.0 (RFC 9112, section 6.1); no
    `Host` in 1.1, two of them, or one that is none (section 3.2); a whole URL as target that names another
    host; a fragment.
    """
    hosts = [value for name, value in headers if name == b"host"]
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if version not in _VERSIONS:
        raise InvalidHttp("only HTTP/1.1 and HTTP/1.0 are spoken here")
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked" or version == "1.0"):
        raise InvalidHttp("Transfer-Encoding is not chunked alone, in HTTP/1.1")
    if len(hosts) != 1 and (hosts or version == "1.1"):
        raise InvalidHttp("the request has no Host header, or more than one")
    if hosts and not _is_host(hosts[0]):
        raise InvalidHttp("the Host header is no name or address with an optional port")
    if target[:1] != b"/" or b"#" in target:
        _refuse_target(target, *hosts)


def raw_path(target: bytes) -> str:
    """The path as it was sent, of as much of a target as came; empty where there is none."""
    try:
        path = parse_url(target).path or b""
    except HttpParserError:
        return ""
    return path.decode("ascii", "replace")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return bool(_HOST.fullmatch(value))


def _refuse_target(target: bytes, host: bytes | None = None) -> None:
    if b"#" in target:
        raise InvalidHttp("the target has a fragment")
    authority = target.partition(b"://")[2].partition(b"/")[0].partition(b"?")[0]
    if host is not None and target != b"*" and authority.lower() != host.lower():
        raise InvalidHttp("the target and the Host header name different hosts")
