"""The parser of requests: httptools', which stops at an offer to speak another protocol, made to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from service.errors import InvalidHttp

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Parser:
    """Tells `protocol` what it reads; of httptools' parser it has what uvicorn uses.

    A server may pass an `Upgrade` over (RFC 9110, section 7.8), and clients of HTTP/2 that have no TLS send
    one with whatever they ask. httptools cannot: it leaves the body to the other protocol, so that the
    body would be lost, or read as the next request. So that head is read again without the offer.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self.on_message_begin = protocol.on_message_begin
        self.on_url = protocol.on_url
        self.on_header = protocol.on_header
        self.on_body = protocol.on_body
        self._parser = HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.get_http_version = self._parser.get_http_version
        self.get_method = self._parser.get_method
        self.should_keep_alive = self._parser.should_keep_alive
        self.should_upgrade = self._parser.should_upgrade

    def feed_data(self, data: bytes) -> None:
        """Read on; raises `InvalidHttp`: what a call of `protocol` raised, or else that this is not HTTP."""
        try:
            while data:
                data = self._left_behind_offer(data)
        except HttpParserError as error:
            raise _reason(error) from None

    def on_headers_complete(self) -> None:
        """As `protocol` has it, but not for a head that is read again."""
        if not self.should_upgrade():
            self._protocol.on_headers_complete()
        elif self.get_method() == b"CONNECT":
            raise HttpParserError("this is no proxy")

    def on_message_complete(self) -> None:
        """As `protocol` has it, but not for a head that is read again."""
        if not self.should_upgrade():
            self._protocol.on_message_complete()

    def _left_behind_offer(self, data: bytes) -> bytes:
        """What is left to read where an offer stopped the parser."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            return self._head_without_offer() + data[offer.args[0] :]
        return b""

    def _head_without_offer(self) -> bytes:
        target = self._protocol.url
        lines = [b"%s %s HTTP/%s" % (self.get_method(), target, self.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self._protocol.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])


def _reason(error: HttpParserError) -> InvalidHttp:
    """Why the parser stopped."""
    cause = error.__context__
    return cause if isinstance(cause, InvalidHttp) else InvalidHttp("what came is not HTTP/1.1")
