"""The child: a process that the supervisor starts, seen from both ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections import deque
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from service.engine.control import Control, Kind, Message, close_all, kept
from service.keyring import Key
from service.settings import Settings

REFUSED = 3
"""The exit status of an engine that must not be started again: it would refuse the same once more."""

_MOST_UNSENT = 10_000
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


class Order(BaseModel):
    """What a child is told at its start."""

    model_config = ConfigDict(frozen=True)

    settings: Settings
    number: int = 0
    """Of a worker, from 0."""
    counts: Path
    """The folder in which all processes count."""
    served: list[tuple[str, int]] | None = None
    """Of an engine in the place of another: the models and versions that were served; None: as selected."""
    keys: list[Key] | None = None
    """Of a worker: those that were valid last, whatever the file of keys holds now."""
    cores: list[int] | None = None
    """Those that it may run on; None leaves that as it is."""

    def message(self, descriptors: tuple[int, ...]) -> Message:
        """What a child waits for first."""
        return Message(Kind.START, 0, self.model_dump_json().encode(), descriptors)


class Child:
    """A running process of ours and the control socket to it."""

    def __init__(self, running: asyncio.subprocess.Process, control: Control) -> None:
        self.control = control
        self._running = running
        # The mutable state besides: what was said and did not fit into the socket.
        self._unsent: deque[Message] = deque()

    @classmethod
    async def start(cls, module: str) -> Self:
        """Start `python -m module` in a session of its own: a terminal's Ctrl-C is for the supervisor.

        It waits for its order.
        """
        control, theirs = Control.pair()
        with theirs:
            running = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return cls(running, control)

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._running.pid

    def tell(self, message: Message) -> None:
        """Send without waiting, what does not fit now later; one that is gone or reads nothing is killed."""
        if len(self._unsent) >= _MOST_UNSENT:
            self.kill()
        elif self._unsent or not self._send(message):
            self._unsent.append(kept(message))
            asyncio.get_running_loop().add_writer(self.control.fileno(), self._send_rest)

    def forget(self) -> None:
        """Hang up."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.control.fileno())
        loop.remove_writer(self.control.fileno())
        for message in self._unsent:
            close_all(message)
        self._unsent.clear()
        self.control.close()

    def _send(self, message: Message) -> bool:
        """Whether it went, now or never."""
        try:
            self.control.send(message)
        except BlockingIOError:
            return False
        except OSError:
            self.kill()
        return True

    def _send_rest(self) -> None:
        while self._unsent and self._send(self._unsent[0]):
            close_all(self._unsent.popleft())
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(self.control.fileno())

    def kill(self) -> None:
        """End it at once."""
        if self._running.returncode is None:
            # Not by asyncio's `kill`, which may collect the exit status that `ended` waits for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> int:
        """Its exit status, once it has ended; negative for a signal."""
        return await self._running.wait()


def begin(*, dies_with_parent: bool) -> tuple[Control, Order, tuple[int, ...]]:
    """In the child, first of all: its control socket, its order, and the descriptors that came with that.

    A process that computes for minutes is to die with its parent, at once; one that listens sees its end.
    """
    descriptor, parent = map(int, sys.argv[1:])
    if dies_with_parent:
        _die_with(parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Some send them to every process of a service; the supervisor alone says in which order all end.
        signal.signal(number, signal.SIG_IGN)
    control = Control(socket.socket(fileno=descriptor))
    started = control.receive()
    if started is None or started.kind is not Kind.START:
        sys.exit(1)  # the supervisor died meanwhile
    order = Order.model_validate_json(started.text)
    if order.cores:
        os.sched_setaffinity(0, order.cores)
    return control, order, started.descriptors


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
