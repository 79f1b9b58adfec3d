"""The doorbell: the small fixed records by which a worker and the engine tell each other of runs of slots.

They travel over a socket pair as a stream, so that one call of the system carries many. Every record begins
with the version of this protocol. Whoever reads one that is not as written here hangs up.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from service.errors import DeadlinePassed, EngineFailed, FoldserveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.batching.job import Wanted

VERSION = 3

DTYPES = ("uint8", "float32")
"""Of rows, by the number that stands for each in a record."""

# version, kind, dtype, model, ticket, first slot, rows, arrived, deadline, client
_RING = struct.Struct("<HBBIQIIddQ")
# version, kind, -, rows of the batch, ticket, seconds in the queue, seconds of computing
_REPLY = struct.Struct("<HBxIQdd")

REPLY_BYTES = _REPLY.size

_CANCEL = 2
_JOBS: dict[Wanted, int] = {"answers": 1, "moments": 3}
_WANTED = {kind: wanted for wanted, kind in _JOBS.items()}


class MalformedRecord(Exception):
    """The other side does not keep to the protocol."""


class Outcome(IntEnum):
    """What became of a job."""

    ANSWERED = 1
    FAILED = 2
    LATE = 3
    CANCELLED = 4

    def error(self) -> FoldserveError:
        """What the one who waits is told."""
        if self is Outcome.LATE:
            return DeadlinePassed("the deadline passed while the job waited")
        return EngineFailed("the rows could not be computed")


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class Ring(NamedTuple):
    """A worker's job: so many rows of a model lie in the arena from a slot on."""

    ticket: int
    """The worker's name for the job, never used again."""
    model: int
    """The number that the engine gave to the model's card."""
    dtype: int
    first_slot: int
    rows: int
    arrived: float
    """Seconds of the monotonic clock, which all processes share."""
    deadline: float
    client: int = 0
    """Tells rows of one client from those of others, for the sample that is looked at; 0 for nobody known."""
    wanted: Wanted = "answers"

    def packed(self) -> bytes:
        """The record."""
        return _RING.pack(
            VERSION,
            _JOBS[self.wanted],
            self.dtype,
            self.model,
            self.ticket,
            self.first_slot,
            self.rows,
            self.arrived,
            self.deadline,
            self.client,
        )


class Cancel(NamedTuple):
    """Nobody waits for that job any more; its run still belongs to the engine until it replies."""

    ticket: int

    def packed(self) -> bytes:
        """The record."""
        return _RING.pack(VERSION, _CANCEL, 0, 0, self.ticket, 0, 0, 0.0, 0.0, 0)


class Reply(NamedTuple):
    """What became of a job; the answers lie in its run, behind its rows."""

    ticket: int
    outcome: Outcome
    batch_rows: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0

    def packed(self) -> bytes:
        """The record."""
        return _REPLY.pack(VERSION, self.outcome, self.batch_rows, self.ticket, self.queue_s, self.compute_s)


class Inbox:
    """Bytes as they come, cut into records."""

    def __init__(self, record: struct.Struct) -> None:
        self._record = record
        self._rest = b""

    def _cut(self, received: bytes) -> Iterator[tuple[Any, ...]]:
        received = self._rest + received
        whole = len(received) // self._record.size * self._record.size
        self._rest = received[whole:]
        for fields in self._record.iter_unpack(received[:whole]):
            if fields[0] != VERSION:
                raise MalformedRecord(f"version {fields[0]}, expected {VERSION}")
            yield fields


class Rings(Inbox):
    """What a worker sent."""

    def __init__(self) -> None:
        super().__init__(_RING)

    def records(self, received: bytes) -> Iterator[Ring | Cancel]:
        """The records that are complete now; raises `MalformedRecord`."""
        for _, kind, dtype, model, ticket, first, rows, arrived, deadline, client in self._cut(received):
            if kind == _CANCEL:
                yield Cancel(ticket)
            elif kind in _WANTED:
                wanted = _WANTED[kind]
                yield _checked(Ring(ticket, model, dtype, first, rows, arrived, deadline, client, wanted))
            else:
                raise MalformedRecord(f"a record of kind {kind}")


class Replies(Inbox):
    """What the engine sent."""

    def __init__(self) -> None:
        super().__init__(_REPLY)

    def records(self, received: bytes) -> Iterator[Reply]:
        """The replies that are complete now; raises `MalformedRecord`."""
        for _, outcome, batch_rows, ticket, queue_s, compute_s in self._cut(received):
            if outcome not in _OUTCOMES:
                raise MalformedRecord(f"an outcome of {outcome}")
            yield Reply(ticket, _OUTCOMES[outcome], batch_rows, queue_s, compute_s)


def _checked(ring: Ring) -> Ring:
    if not ring.rows:
        raise MalformedRecord("a job of no rows")
    for seconds in (ring.arrived, ring.deadline):
        if not math.isfinite(seconds):  # it would have no place in the order of the queue
            raise MalformedRecord(f"a time of {seconds}")
    return ring
