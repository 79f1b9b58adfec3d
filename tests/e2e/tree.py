"""The processes of one running service, as the system sees them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .server import until

if TYPE_CHECKING:
    import socket

_PROC = Path("/proc")
_COUNTS = re.compile(r" (/\S*/foldserve-[^/\s]+)/[^/\s]+\.db$", re.MULTILINE)

Part = Literal["engine", "web"]


class Tree:
    """The supervisor of this pid and its children."""

    def __init__(self, supervisor: int) -> None:
        self.supervisor = supervisor

    def children(self, *parts: Part) -> list[int]:
        """The pids of the children of these kinds, of any where none is named, oldest first."""
        ours = (pid for pid in _running() if _parent(pid) == self.supervisor)
        wanted = [f"service.{part}" for part in parts or ("engine", "web")]
        return sorted(pid for pid in ours if any(module in _arguments(pid) for module in wanted))

    @property
    def engine(self) -> int:
        """The pid of the engine, waited for."""
        return until(lambda: self.children("engine"))[0]

    def stall_engine(self) -> int:
        """Stop the engine, which was just started, so that it loads for ever; its pid.

        Not before it loads torch: until it has its order it would not die with its parent.
        """
        pid = self.engine
        until(lambda: "libtorch" in (_PROC / str(pid) / "maps").read_text())
        os.kill(pid, signal.SIGSTOP)
        return until(lambda: pid if is_stopped(pid) else 0)

    def workers(self, count: int) -> list[int]:
        """The pids of the workers, once there are so many."""

        def look() -> list[int] | None:
            found = self.children("web")
            return found if len(found) == count else None

        found = until(look)
        assert found
        return found

    def all(self) -> list[int]:
        return [self.supervisor, *self.children()]

    def counts(self) -> Path:
        """The folder in which its processes count."""
        found = until(lambda: _COUNTS.findall((_PROC / str(self.supervisor) / "maps").read_text()))
        return Path(found[0])

    def resident_bytes(self) -> dict[int, int]:
        """Memory of each process."""
        page = os.sysconf("SC_PAGE_SIZE")
        return {pid: int((_PROC / str(pid) / "statm").read_text().split()[1]) * page for pid in self.all()}

    def forget_peaks(self) -> None:
        """Let `peak_bytes` count from now on."""
        for pid in self.all():
            (_PROC / str(pid) / "clear_refs").write_text("5")

    def peak_bytes(self) -> dict[int, int]:
        """The most memory that each process took."""
        statuses = {pid: (_PROC / str(pid) / "status").read_text() for pid in self.all()}
        return {pid: int(found.partition("VmHWM:")[2].split()[0]) * 1024 for pid, found in statuses.items()}

    def owner(self, connection: socket.socket) -> int | None:
        """Which process has accepted this client's connection; None for one that waits in a backlog."""
        inode = _inode(connection.getpeername()[1], connection.getsockname()[1])
        return next((pid for pid in self.children("web") if f"socket:[{inode}]" in _open(pid)), None)

    def signal(self, number: int) -> None:
        """To every process, the supervisor first."""
        for pid in self.all():
            os.kill(pid, number)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def are_gone(pids: list[int]) -> bool:
    return not set(pids) & set(_running())


def is_stopped(pid: int) -> bool:
    return _state(pid) == "T"


def _running() -> list[int]:
    """Processes that have not ended; one that nobody has buried yet has."""
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _state(pid) not in ("Z", "X", "")]


def _stat(pid: int) -> list[str]:
    """The fields of the process behind its name, which may hold blanks; none of one that is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _arguments(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _open(pid: int) -> set[str]:
    """What the descriptors of a process stand for."""
    found = set()
    for entry in (_PROC / str(pid) / "fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def _inode(server_port: int, client_port: int) -> int:
    """Of the server's side of a connection."""
    for line in (_PROC / "net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(address.split(":")[1], 16) for address in fields[1:3])
        if ports == (server_port, client_port):
            return int(fields[9])
    raise AssertionError("there is no such connection")
