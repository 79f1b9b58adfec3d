"""A contender of `serving.py`: a tree of processes on the server's cores, under a load or at rest."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pinned
import process_tree
import wrk
from absent import AbsentError

if TYPE_CHECKING:
    from payloads import Payload

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_PATIENCE_S = 180


@dataclass(frozen=True)
class Bench:
    """What all contenders of a network share."""

    store: Path
    model: str
    max_batch: int
    """For peers that batch: what foldserve computes at once, unless asked for another."""
    server_cores: tuple[int, ...]
    load_core: int
    workers: int
    is_slow: bool
    """Whether a row takes milliseconds: then windows are read by the slope of their answers."""
    flags: tuple[str, ...] = ()
    """More flags of `foldserve serve`."""


class Contender:
    """A service in a process of its own, asked over HTTP."""

    name = ""
    words = ""
    path = "/predict"
    is_restless = False
    """Whether it works when nobody asks, so that it has to be stopped while others are measured."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.port = _free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it ends
        self._process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        """What runs it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Of its processes: this one's, without settings of foldserve."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FOLDSERVE_")}
        kept.pop("OMP_NUM_THREADS", None)  # every contender has the server's cores
        return kept

    def start(self) -> None:
        """Start its processes, pinned to the server's cores before the program is loaded."""
        self._process = subprocess.Popen(
            pinned.command(self.bench.server_cores, self.command()),
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=self._stdout(),
            stderr=self._log,
            text=True,
        )

    def wait(self, payload: Payload) -> None:
        """Until it answers; raises `AbsentError` where it does not."""
        until = time.monotonic() + _PATIENCE_S
        while not self._answers(payload):
            if self.process.poll() is not None or time.monotonic() > until:
                raise AbsentError(f"it did not start:\n{self.log()[-2000:]}")
            time.sleep(0.1)

    def measure(self, payload: Payload, concurrency: int, seconds: int) -> wrk.Window:
        """One window of a closed loop."""
        return wrk.load(
            self.url(payload),
            payload,
            connections=concurrency,
            seconds=seconds,
            core=self.bench.load_core,
            note_arrivals=self.bench.is_slow,
        )

    def warm_up(self, payloads: list[Payload], concurrency: int) -> None:
        """Whatever it does once for a load of this size: pools, batches."""
        self.measure(payloads[0], concurrency, 1)

    def rest(self) -> None:
        """Leave the cores to others."""
        process_tree.settle(self.pid)
        if self.is_restless:
            process_tree.pause(self.pid)

    def wake(self) -> None:
        """Be ready for a load."""
        process_tree.resume(self.pid)

    def stop(self) -> None:
        """End it and everything it started."""
        process_tree.end(self.pid)
        self.process.communicate()
        self._log.close()

    def url(self, payload: Payload) -> str:
        """Where the payload is sent."""
        return f"http://127.0.0.1:{self.port}{self.path}{payload.query}"

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())

    @property
    def process(self) -> subprocess.Popen[str]:
        """The root of its tree."""
        assert self._process is not None, "not started"  # noqa: S101
        return self._process

    @property
    def pid(self) -> int:
        """Of the root of its tree."""
        return self.process.pid

    def log(self) -> str:
        """What it wrote so far."""
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def _stdout(self) -> Any:
        return self._log

    def _answers(self, payload: Payload) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            target = f"{self.path}{payload.query}"
            connection.request(
                "POST", target, payload.file.read_bytes(), {"Content-Type": payload.media_type}
            )
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
