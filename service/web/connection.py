"""Connections: HTTP/1.1 as uvicorn speaks it, with clients that cannot hold the service up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import unquote

from httptools import HttpParserError, parse_url
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import FoldserveError, HeadersTooLarge, InvalidHttp, InvalidInput, RequestTimeout
from service.telemetry.identity import identify
from service.web.access import IDENTITY
from service.web.alarm import Alarm
from service.web.body_limit import FAULT
from service.web.flow import Flow
from service.web.head import refuse_ambiguous
from service.web.parser import Parser
from service.web.problems import kind, problem
from service.web.refusal import Refusal
from service.web.surplus import PATIENCE_S, most_connections, turning_away

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from httptools import HttpRequestParser
    from uvicorn.config import Config

    from service.settings import Settings

WATCHERS = "watchers"
"""Where in the state of a request whoever answers it leaves functions to call once the client is gone."""

GONE = "gone"
"""Where in the state of a request it then says so, for those who look later."""

LINGER_S = 0.5
"""How long a drain waits for a request that may be on its way: many round trips, and no nuisance."""

# The least rate of a body, in bytes a second: an eighth of a megabit, slower than any line that images
# are sent over. A body of the default limit may then take half an hour, and no longer.
_LEAST_RATE = 16 * 1024

# Bytes that may come without being part of a body: headers, trailers, the framing of chunks. Other
# servers take 8 to 64 KiB of headers.
_MAX_HEAD_BYTES = 64 * 1024

# Requests that wait on one connection for those before them: no usual client sends the next one so early.
_MAX_PIPELINED = 16


class _TooManyAtOnce(Exception):
    """Ends the parser's work in the middle of what it was given."""


def _reason(error: HttpParserError) -> InvalidHttp:
    """Why the parser stopped: what one of its callbacks raised, or else that this is not HTTP."""
    cause = error.__context__
    return cause if isinstance(cause, InvalidHttp) else InvalidHttp("what came is not HTTP/1.1")


class State(ServerState):
    """What uvicorn's connections share; ours also see in it that the service is shutting down."""

    is_draining = False


class Connection(HttpToolsProtocol):
    """One client's connection, with a limit in time for whatever the client owes.

    - Headers: `header_timeout_s` from the connection's first moment, or from the first byte of a
      further request; then 408, or a silent close where no byte of the request came.
    - A body: `body_timeout_s`, and one second more for every 16 KiB that came; then 408. Time in which
      the service itself does not read is not counted.
    - The next request: `idle_timeout_s`; then the connection is closed.
    - Reading an answer: the connection is cut where nothing of it is taken for `idle_timeout_s`.

    What is not HTTP is answered with 400, endless headers with 431; behind 16 requests that wait for
    their turn nothing more is read. A connection beyond `max_connections` is for one answer: 503, unless
    it is a probe. Once the service shuts down, answers say `Connection: close`, and a connection that owes
    nothing lingers for `LINGER_S`, so that a request on its way is still answered.

    Every answer bears the id of its request. `witness` is told what is refused here, which no application
    sees.

    Of uvicorn's class it uses, beside the callbacks of protocol and parser: the attributes `app`,
    `connections`, `loop`, `transport`, `flow`, `cycle`, `pipeline`, `parser`, `url`, `headers`, `scope`,
    `client` and `server_state`; the methods `on_response_complete`, `shutdown` and `_start_asgi_task`; of a
    cycle `scope`, `keep_alive`, `default_headers`, `more_body`, `message_event`, `disconnected`,
    `response_started`, `response_complete` and `waiting_for_100_continue`; of a server state
    `default_headers` and `total_requests`. `tests/web/test_connection.py` says so when one of them has gone.
    """

    server_state: State

    def __init__(
        self,
        settings: Settings,
        config: Config,
        server_state: State,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        witness: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = cast("HttpRequestParser", Parser(self))
        self._settings = settings
        self._witness = witness
        self._most = most_connections(settings)
        self._reading = Alarm(self.loop, self._on_late_client)
        self._writing = Alarm(self.loop, self._on_unread_answer)
        # The mutable state: the part of a request that is being read and since when, how much of its
        # body came, how much came since that is none, how much of an answer was unsent last, whether
        # anything more is read, whether this is one connection too many, whether its client was still to
        # be asked for a body when that was looked at last, and the request that is being answered.
        self._part: Literal["head", "body"] | None = None
        self._since = 0.0
        self._received = 0
        self._unparsed = 0
        self._unsent = 0
        self._is_refused = False
        self._is_surplus = False
        self._was_unasked = False
        self._answered: RequestResponseCycle | None = None

    # --- what the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._is_surplus = True
            self.app = cast("Any", turning_away(cast("Any", self.app), self._witness))
        self.flow = Flow(transport, self._on_reading_again)
        self._since = self.loop.time()
        self._reading.set(self._deadline())

    def connection_lost(self, exc: Exception | None) -> None:
        self._reading.cancel()
        self._writing.cancel()
        if self._answered is not None:
            state = cast("dict[str, Any]", self._answered.scope)["state"]
            state[GONE] = True
            for watcher in list(state[WATCHERS]):
                watcher()
        if self._answered is not None and self._answered is not self.cycle:
            self._answered.disconnected = True  # uvicorn tells only the request that came last
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In place of uvicorn's, with which strangers could fill the log."""
        if self._is_refused:
            return
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserError as error:
            self._refuse(_reason(error))
        self._look_at_progress()

    def _look_at_progress(self) -> None:
        if self._is_refused:
            return
        if self._unparsed > _MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"more than {_MAX_HEAD_BYTES} bytes of headers"))
        elif self._part is None and self._is_answer_owed:
            self._reading.clear()
        elif self._part == "body" and self.server_state.is_draining and not self._is_answer_owed:
            self._reading.advance(self._deadline())  # nobody wants the rest: it does not put the end off
        else:
            self._reading.set(self._deadline())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._writing.clear()

    # --- what the parser says

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["state"][WATCHERS] = set()
        self._part = "head"
        if self.cycle is not None:  # the time of the first request began with the connection
            self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        if len(self.pipeline) == _MAX_PIPELINED:
            raise _TooManyAtOnce
        refuse_ambiguous(self.parser.get_http_version(), self.url, self.headers)
        is_next = not self._is_answer_owed
        identity = identify(self.headers)
        cast("dict[str, Any]", self.scope)["state"][IDENTITY] = identity
        super().on_headers_complete()
        self.cycle.default_headers = [*self.cycle.default_headers, identity.header]
        if is_next:
            self._answered = self.cycle
        self._part, self._since = "body", self.loop.time()
        self._received = self._unparsed = 0
        self._was_unasked = self.cycle.waiting_for_100_continue
        self.headers = []  # trailers go here, not among the headers that a route reads
        if self.server_state.is_draining or self._is_surplus:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        self._unparsed = 0
        super().on_body(body)
        if not self._is_answer_owed and self._received > self._settings.max_body_bytes:
            self._is_refused = True
            self._close()

    def on_message_complete(self) -> None:
        self._part = None
        self._unparsed = 0
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # or nobody would see the client leave: uvicorn waits for room

    # --- what uvicorn says

    def on_response_complete(self) -> None:
        """Go on with the next request; in place of uvicorn's, which makes a timer each time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._reading.clear()
            self._watch_writing()
            return
        if self.pipeline:
            self._answered, app = self.pipeline.pop()
            self._start_asgi_task(self._answered, app)
        elif self._part is None or self.server_state.is_draining:
            self._reading.set(self._deadline())
        if not self.pipeline:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Begin the drain of this connection; called once or more after the state says so."""
        if not self._is_answer_owed:
            self._reading.advance(self._deadline())
        elif not self.cycle.response_started:  # one that has started cannot say any more that it is the last
            self.cycle.keep_alive = False

    # --- what follows

    @property
    def _is_answer_owed(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _raw_path(self) -> str:
        """Of the request whose headers are being read, once its first line was; else empty."""
        try:
            target = parse_url(self.url if self._part == "head" else b"").path or b""
        except HttpParserError:
            return ""
        return target.decode("ascii", "replace")

    def _deadline(self) -> float:
        """The time by which more must have come of what is being read, or a request at all."""
        now, settings = self.loop.time(), self._settings
        if self._part == "body":
            deadline = self._since + settings.body_timeout_s + self._received / _LEAST_RATE
        elif self._part == "head" or self.cycle is None:
            patience_s = PATIENCE_S if self._is_surplus else settings.header_timeout_s
            deadline = self._since + min(patience_s, settings.header_timeout_s)
        else:
            deadline = now + settings.idle_timeout_s
        if self.server_state.is_draining and not self._is_answer_owed:
            return min(deadline, now + LINGER_S)
        return deadline

    def _on_reading_again(self, paused_s: float) -> None:
        self._since += paused_s
        if self._part is not None:
            self._reading.set(self._deadline())

    def _on_late_client(self) -> None:
        if self.flow.read_paused:
            return  # not the client is late; the alarm is set again when reading goes on
        if self._part == "body" and self._was_unasked:  # its time begins when it is asked, or a little later
            self._was_unasked = self.cycle.waiting_for_100_continue
            self._since = self.loop.time()
            self._reading.set(self._deadline())
        elif self._part == "body":
            self._refuse(RequestTimeout("the body came too slowly, or stopped"))
        elif self._part == "head" and not self.server_state.is_draining:
            limit_s = self._settings.header_timeout_s
            self._refuse(RequestTimeout(f"the headers were not complete within {limit_s:g} s"))
        else:
            self._close()

    def _refuse(self, error: InvalidInput) -> None:
        """Read nothing more: what is being read is answered with `error`, what was read as usual."""
        self._is_refused = True
        if not self._is_answer_owed:
            if self._part != "body":  # of a body that comes still the answer was given before
                self._write(error)
            self._close()
            return
        self._reading.clear()
        self.cycle.keep_alive = False
        if self.cycle.more_body:  # the route waits for it, and answers
            cast("dict[str, Any]", self.cycle.scope)["state"][FAULT] = error
            self.cycle.message_event.set()

    def _write(self, error: InvalidInput) -> None:
        answer = problem(error, unquote(self._raw_path))
        answer.headers["Connection"] = "close"
        refusal = self._refusal(error)
        headers = (*self.server_state.default_headers, *answer.raw_headers, refusal.identity.header)
        lines = (b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"".join((STATUS_LINE[answer.status_code], *lines, b"\r\n", answer.body)))
        self._witness(refusal._replace(body_bytes=len(answer.body)))

    def _refusal(self, error: FoldserveError) -> Refusal:
        """Of what is being read, as far as it was."""
        status, reason = kind(error)
        return Refusal(
            identity=identify(self.headers if self._part == "head" else []),
            reason=reason,
            status=status.value,
            path=self._raw_path,
            client=self.client[0] if self.client else "",
        )

    def _close(self) -> None:
        self._reading.clear()
        if not self.transport.is_closing():
            self.transport.close()
            self._watch_writing()

    def _watch_writing(self) -> None:
        """Have the client take something of what is unsent before the alarm rings."""
        self._unsent = self.transport.get_write_buffer_size()
        self._writing.set(self.loop.time() + self._settings.idle_timeout_s)

    def _on_unread_answer(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_writing()
        else:
            self.transport.abort()
