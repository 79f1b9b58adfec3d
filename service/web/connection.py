"""Connections: HTTP/1.1 as uvicorn speaks it, with clients that cannot hold the service up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.errors import HeadersTooLarge, InvalidHttp, InvalidInput, RequestTimeout
from service.telemetry.identity import identify
from service.web.access import IDENTITY
from service.web.alarm import Alarm
from service.web.body_limit import FAULT
from service.web.flow import Flow
from service.web.head import raw_path, refuse_ambiguous
from service.web.interest import WATCHERS, end_interest
from service.web.parser import Parser
from service.web.reading import MAX_HEAD_BYTES, Reading
from service.web.refusal import Refusal, refused
from service.web.surplus import PATIENCE_S, most_connections, turning_away
from service.web.unsent import Unsent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from httptools import HttpRequestParser
    from uvicorn._types import HTTPScope
    from uvicorn.config import Config

    from service.settings import Settings

LINGER_S = 0.5
"""How long a drain waits for a request that may be on its way: many round trips, and no nuisance."""

# Requests that wait on one connection for those before them: no usual client sends the next one so early.
_MAX_PIPELINED = 16


def _state(scope: HTTPScope) -> dict[str, Any]:
    return scope["state"]


class State(ServerState):
    """What uvicorn's connections share; ours also see in it that the service is shutting down."""

    is_draining = False


class Connection(HttpToolsProtocol):
    """One client's connection, with a limit in time for whatever the client owes.

    - Headers: `header_timeout_s`; then 408, or a silent close where no byte of the request came.
    - A body: `body_timeout_s`, and more for what came of it; then 408. `Reading` says from when.
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
    _reading: Reading
    _unsent: Unsent

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
        self._alarm = Alarm(self.loop, self._on_late_client)
        # The mutable state, besides what is read and what is unsent: whether anything more is read, whether
        # this is one connection too many, and the request that is being answered.
        self._is_refused = False
        self._is_surplus = False
        self._answered: RequestResponseCycle | None = None

    # --- what the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._is_surplus = True
            self.app = cast("Any", turning_away(cast("Any", self.app), self._witness))
        self.flow = Flow(transport, self._on_reading_again)
        head_s = self._settings.header_timeout_s
        head_s = min(head_s, PATIENCE_S) if self._is_surplus else head_s
        self._reading = Reading(self._settings, head_s, self.loop.time())
        self._unsent = Unsent(transport, self.loop, self._settings.idle_timeout_s)
        self._alarm.set(self._deadline())

    def connection_lost(self, exc: Exception | None) -> None:
        self._alarm.cancel()
        self._unsent.cancel()
        if self._answered is not None:
            end_interest(_state(self._answered.scope))
        if self._answered is not None and self._answered is not self.cycle:
            self._answered.disconnected = True  # uvicorn tells only the request that came last
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In place of uvicorn's, with which strangers could fill the log."""
        if self._is_refused:
            return
        self._reading.take(len(data))
        try:
            self.parser.feed_data(data)
        except InvalidHttp as error:
            self._refuse(error)
        self._look_at_progress()

    def _look_at_progress(self) -> None:
        if self._is_refused:
            return
        part = self._reading.part
        if self._reading.unparsed > MAX_HEAD_BYTES:
            self._refuse(HeadersTooLarge(f"more than {MAX_HEAD_BYTES} bytes of headers"))
        elif part is None and self._is_answer_owed:
            self._alarm.clear()
        elif part == "body" and self.server_state.is_draining and not self._is_answer_owed:
            self._alarm.advance(self._deadline())  # nobody wants the rest: it does not put the end off
        else:
            self._alarm.set(self._deadline())

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._unsent.clear()

    # --- what the parser says

    def on_message_begin(self) -> None:
        super().on_message_begin()
        _state(self.scope)[WATCHERS] = set()
        self._reading.begin_head(self.loop.time())

    def on_headers_complete(self) -> None:
        if len(self.pipeline) == _MAX_PIPELINED:
            raise InvalidHttp(f"more than {_MAX_PIPELINED} requests wait for their turn")
        refuse_ambiguous(self.parser.get_http_version(), self.url, self.headers)
        is_next = not self._is_answer_owed
        identity = identify(self.headers)
        _state(self.scope)[IDENTITY] = identity
        super().on_headers_complete()
        self.cycle.default_headers = [*self.cycle.default_headers, identity.header]
        if is_next:
            self._answered = self.cycle
        self._reading.begin_body(self.loop.time(), is_unasked=self.cycle.waiting_for_100_continue)
        self.headers = []  # trailers go here, not among the headers that a route reads
        if self.server_state.is_draining or self._is_surplus:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._reading.take_body(len(body))
        super().on_body(body)
        if not self._is_answer_owed and self._reading.received > self._settings.max_body_bytes:
            self._is_refused = True
            self._close()

    def on_message_complete(self) -> None:
        self._reading.end()
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # or nobody would see the client leave: uvicorn waits for room

    # --- what uvicorn says

    def on_response_complete(self) -> None:
        """Go on with the next request; in place of uvicorn's, which makes a timer each time."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._alarm.clear()
            self._unsent.watch()
            return
        if self.pipeline:
            self._answered, app = self.pipeline.pop()
            self._start_asgi_task(self._answered, app)
        elif self._reading.part is None or self.server_state.is_draining:
            self._alarm.set(self._deadline())
        if not self.pipeline:
            self.flow.resume_reading()

    def shutdown(self) -> None:
        """Begin the drain of this connection; called once or more after the state says so."""
        if not self._is_answer_owed:
            self._alarm.advance(self._deadline())
        elif not self.cycle.response_started:  # one that has started cannot say any more that it is the last
            self.cycle.keep_alive = False

    # --- what follows

    @property
    def _is_answer_owed(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _deadline(self) -> float:
        """The time by which the client must have sent more; it is the nearer one while the service ends."""
        now = self.loop.time()
        deadline = self._reading.deadline(now)
        if self.server_state.is_draining and not self._is_answer_owed:
            return min(deadline, now + LINGER_S)
        return deadline

    def _on_reading_again(self, paused_s: float) -> None:
        self._reading.put_off(paused_s)
        if self._reading.part is not None:
            self._alarm.set(self._deadline())

    def _on_late_client(self) -> None:
        if self.flow.read_paused:
            return  # not the client is late; the alarm is set again when reading goes on
        part = self._reading.part
        if part == "body" and self._reading.was_unasked:
            self._reading.begin_body_again(self.loop.time(), is_unasked=self.cycle.waiting_for_100_continue)
            self._alarm.set(self._deadline())
        elif part == "body":
            self._refuse(RequestTimeout("the body came too slowly, or stopped"))
        elif part == "head" and not self.server_state.is_draining:
            limit_s = self._settings.header_timeout_s
            self._refuse(RequestTimeout(f"the headers were not complete within {limit_s:g} s"))
        else:
            self._close()

    def _refuse(self, error: InvalidInput) -> None:
        """Read nothing more: what is being read is answered with `error`, what was read as usual."""
        self._is_refused = True
        if not self._is_answer_owed:
            if self._reading.part != "body":  # of a body that comes still the answer was given before
                self._write(error)
            self._close()
            return
        self._alarm.clear()
        self.cycle.keep_alive = False
        if self.cycle.more_body:  # the route waits for it, and answers
            _state(self.cycle.scope)[FAULT] = error
            self.cycle.message_event.set()

    def _write(self, error: InvalidInput) -> None:
        """Answer what is being read, as far as it was."""
        is_head = self._reading.part == "head"
        refusal, answer = refused(
            error,
            identity=identify(self.headers if is_head else []),
            path=raw_path(self.url) if is_head else "",
            client=self.client[0] if self.client else "",
            headers=self.server_state.default_headers,
        )
        self.transport.write(answer)
        self._witness(refusal)

    def _close(self) -> None:
        self._alarm.clear()
        if not self.transport.is_closing():
            self.transport.close()
            self._unsent.watch()
