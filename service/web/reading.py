"""The reading: which part of a request a client is sending, and by when more of it must have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from service.settings import Settings

# The least rate of a body, in bytes a second: an eighth of a megabit, slower than any line that images
# are sent over. A body of the default limit may then take half an hour, and no longer.
_LEAST_RATE = 16 * 1024

MAX_HEAD_BYTES = 64 * 1024
"""Bytes that may come without being part of a body: headers, trailers, the framing of chunks. Other servers
take 8 to 64 KiB of headers."""


class Reading:
    """What one client sends, request by request; all times are in seconds of one clock, the loop's.

    It may take for

    - headers: `head_s` from the connection's first moment, or from the first byte of a further request;
    - a body: `body_timeout_s`, and one second more for every 16 KiB that came, besides the time in which the
      service itself does not read;
    - the next request: `idle_timeout_s` from whenever that is looked at.
    """

    def __init__(self, settings: Settings, head_s: float, now: float) -> None:
        self._settings = settings
        self._head_s = head_s
        # The mutable state, which a connection reads and the methods change.
        self.part: Literal["opening", "head", "body"] | None = "opening"
        """Which is being read: nothing has come yet, headers, a body and what ends it, or none."""
        self.received = 0
        """Bytes of the body that came."""
        self.unparsed = 0
        """Bytes that came since then, or since a part began, and are none of a body."""
        self.was_unasked = False
        """Whether the client was still to be asked for the body when that was looked at last."""
        self._since = now

    def begin_head(self, now: float) -> None:
        """The first byte of a request has come."""
        if self.part != "opening":
            self._since = now
        self.part = "head"

    def begin_body(self, now: float, *, is_unasked: bool) -> None:
        """The headers are complete; with `is_unasked` the client waits to be asked for the body."""
        self.part, self._since = "body", now
        self.received = self.unparsed = 0
        self.was_unasked = is_unasked

    def begin_body_again(self, now: float, *, is_unasked: bool) -> None:
        """Give a client the whole time that was to be asked: it begins with that, or a little later."""
        self._since, self.was_unasked = now, is_unasked

    def take(self, length: int) -> None:
        """So many bytes have come, of whatever."""
        self.unparsed += length

    def take_body(self, length: int) -> None:
        """So many bytes of the body were found in what came."""
        self.received += length
        self.unparsed = 0

    def end(self) -> None:
        """The request is complete."""
        self.part = None
        self.unparsed = 0

    def put_off(self, paused_s: float) -> None:
        """Do not count the time in which the service read nothing."""
        self._since += paused_s

    def deadline(self, now: float) -> float:
        """The time by which more must have come of what is being read, or a request at all."""
        if self.part == "body":
            return self._since + self._settings.body_timeout_s + self.received / _LEAST_RATE
        if self.part is None:
            return now + self._settings.idle_timeout_s
        return self._since + self._head_s
