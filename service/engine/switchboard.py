"""The switchboard: hears all that reaches the engine, and carries its replies."""

from __future__ import annotations

import logging
import os
import select
import socket
from typing import TYPE_CHECKING

from service.engine.arena import Arena
from service.engine.control import Kind, Message, close_all
from service.engine.doorbell import Cancel, MalformedRecord, Outcome, Reply
from service.engine.link import Link
from service.engine.linked_job import LinkedJob, linked_job
from service.telemetry import level_of, set_level

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.batching.queue import Queue
    from service.engine.card import ModelFacts
    from service.engine.control import Control
    from service.engine.doorbell import Ring

log = logging.getLogger("foldserve.engine")


class Switchboard:
    """Puts what the workers ring into the queue, until the supervisor ends that or is gone.

    A worker that breaks the protocol loses its link, and the supervisor hears of it.
    """

    def __init__(
        self,
        control: Control,
        queue: Queue[LinkedJob],
        models: Mapping[int, ModelFacts],
        obey: Callable[[Message], None],
    ) -> None:
        """`models` are those that jobs may be of; `obey` is told what the supervisor says of changes."""
        self._control = control
        self._queue = queue
        self._models = models
        self._obey = obey
        # Not the selectors module, which takes longer than the call of the system that it makes.
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        # The mutable state besides: whether the end has begun, the links by descriptor, the jobs of each
        # without a reply, and the links with one to send.
        self._is_draining = False
        self._links: dict[int, Link] = {}
        self._jobs: dict[Link, dict[int, LinkedJob]] = {}
        self._unsent: set[Link] = set()

    @property
    def is_done(self) -> bool:
        """Whether the end has begun and every worker has hung up: nothing can come any more."""
        return self._is_draining and not self._links

    def hear(self, patience_s: float) -> None:
        """Take everything that has come; where nothing has, wait for it so long at most."""
        self.flush()
        for descriptor, event in self._poll.poll(patience_s):
            link = self._links.get(descriptor)
            if link is None:
                if descriptor == self._control.fileno():
                    self._hear_control()
                continue  # whoever is watched besides looks for itself
            if event & select.EPOLLOUT and link.flush():
                self._poll.modify(link, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                self._hear_link(link)

    def wake_for(self, descriptor: int) -> None:
        """Let `hear` return when this is readable, too."""
        self._poll.register(descriptor, select.EPOLLIN)

    def reply(self, job: LinkedJob, outcome: Outcome) -> None:
        """Tell a job's worker what became of it, with the next `flush` or `hear`; a gone link needs none."""
        if self._jobs.get(job.link, {}).pop(job.ticket, None) is not None:
            job.link.reply(Reply(job.ticket, outcome, job.batch_rows, job.queue_s, job.compute_s))
            self._unsent.add(job.link)

    def flush(self) -> None:
        """Send the replies; to a worker that reads none now, once it does."""
        for link in self._unsent:
            if not link.flush():
                self._poll.modify(link, select.EPOLLIN | select.EPOLLOUT)
        self._unsent.clear()

    def close(self) -> None:
        """Hear nobody any more."""
        self._poll.close()

    def _hear_control(self) -> None:
        message = self._control.receive()
        if message is None or message.kind is Kind.DRAIN:
            self._is_draining = True
            self._queue.close()  # what waits for company need not: soon nobody comes
            self._poll.unregister(self._control)
        elif message.kind is Kind.LINK:
            end, memory = message.descriptors
            link = Link(message.number, socket.socket(fileno=end), Arena(memory))
            os.close(memory)
            self._jobs[link] = {}
            self._links[link.fileno()] = link
            self._poll.register(link, select.EPOLLIN)
        elif message.kind is Kind.LEVEL:
            set_level(level_of(message.text))
        elif message.kind in (Kind.ASK, Kind.RETIRE):
            self._obey(message)
        else:
            close_all(message)

    def _hear_link(self, link: Link) -> None:
        try:
            records = link.receive()
            for record in records or ():
                self._take(link, record)
        except MalformedRecord as malformed:
            log.error("worker %d is dismissed: %s", link.worker, malformed)  # noqa: TRY400 - no bug of this process
            self._control.send(Message(Kind.DISMISSED, link.worker))
            records = None
        if records is None:
            self._hang_up(link)

    def _take(self, link: Link, record: Ring | Cancel) -> None:
        jobs = self._jobs[link]
        if isinstance(record, Cancel):
            cancelled = jobs.get(record.ticket)
            if cancelled is not None:
                self._queue.withdraw(cancelled)
                self.reply(cancelled, Outcome.CANCELLED)
            return
        if record.ticket in jobs:
            raise MalformedRecord(f"ticket {record.ticket} twice")
        # A job has slots of its own until its worker has read the reply.
        if len(jobs) + link.unsent >= link.arena.slots:
            raise MalformedRecord("more jobs than its arena holds")
        job = jobs[record.ticket] = linked_job(link, record, self._models)
        self._queue.submit(job)

    def _hang_up(self, link: Link) -> None:
        self._poll.unregister(link)
        self._unsent.discard(link)
        del self._links[link.fileno()]
        for job in self._jobs.pop(link).values():
            self._queue.withdraw(job)
        link.close()
