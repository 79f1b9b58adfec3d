"""The soak: clients of every kind against one service, and what must be true of it in the end."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.e2e.server import ROOT, Server, until
from tests.soak import watch
from tests.soak.bodies import MAX_BODY_MB
from tests.soak.tally import Tally
from tests.soak.watch import Growth, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

_WARM_UP_S = 60
_LONG_S = 240
"""From here on memory is judged strictly, after a warm-up; before, only for a leak of whole bodies."""
_STRICT, _LOOSE = (0.05, 8.0), (0.05, 64.0)
_IN_USE = ("foldserve_waiting_rows", "foldserve_slots_in_use")
_NEVER = ("internal-error", "engine-failed")
_SPARE_FILES = 16  # connections that are just being closed


@dataclass
class Verdict:
    """What the soak saw, and what was wrong with it."""

    tally: Tally
    growths: list[Growth]
    complaints: list[str] = field(default_factory=list)


def soak(seconds: int, clients: int = 3, connections: int = 8) -> Verdict:
    """Use a service of its own for so long."""
    with Server.start(max_body_mb=MAX_BODY_MB, log_level="warning") as server:
        before = {pid: watch.open_files(pid) for pid in watch.tree(server.process.pid)}
        with Watch(server.process.pid) as watched:
            tally = _used(server, seconds, clients, connections)
        growths = watched.growth(_WARM_UP_S if seconds >= _LONG_S else 0)
        verdict = Verdict(tally, growths)
        verdict.complaints += [
            *_of_answers(tally),
            *_of_memory(growths, _STRICT if seconds >= _LONG_S else _LOOSE),
            *_of_processes(server, before),
            *_of_metrics(server),
        ]
        if server.stop() != 0:
            verdict.complaints.append("it did not end with status 0")
        if "Traceback" in server.log:
            verdict.complaints.append(f"its log has a traceback:\n{server.log[-4000:]}")
    return verdict


def _used(server: Server, seconds: int, clients: int, connections: int) -> Tally:
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    command = [sys.executable, "-m", "tests.soak.client", host, port, str(seconds), str(connections)]
    running = [
        subprocess.Popen([*command, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for seed in range(clients)
    ]
    tally = Tally()
    for client in running:
        said, _ = client.communicate()
        if client.returncode:
            tally.is_wrong(f"a client ended with status {client.returncode}")
        else:
            tally.add(json.loads(said))
    return tally


def _of_answers(tally: Tally) -> Iterator[str]:
    sent, came = sum(tally.requests.values()), sum(tally.answers.values()) + sum(tally.closings.values())
    if sent != came:
        yield f"{sent} requests were sent and waited for, {came} were answered or closed"
    if tally.number_wrong:
        yield f"{tally.number_wrong} answers were wrong: {'; '.join(tally.wrong)}"
    if not tally.status(200):
        yield "nothing was answered with 200"


def _of_memory(growths: list[Growth], bound: tuple[float, float]) -> Iterator[str]:
    for growth in growths:
        if not growth.is_within(*bound):
            yield f"memory grew from {growth.first:.0f} to {growth.last:.0f} MiB: {growth.name}"


def _of_processes(server: Server, before: dict[int, int]) -> Iterator[str]:
    now = watch.tree(server.process.pid)
    if set(now) != set(before):
        yield f"the processes {sorted(before)} became {sorted(now)}"
    for pid in set(now) & set(before):
        try:
            until(lambda pid=pid: watch.open_files(pid) <= before[pid] + _SPARE_FILES)  # type: ignore[misc]
        except AssertionError:
            yield f"process {pid} had {before[pid]} descriptors open and has {watch.open_files(pid)}"


def _of_metrics(server: Server) -> Iterator[str]:
    try:
        until(lambda: not _sum(server, _IN_USE))
    except AssertionError:
        yield f"rows wait or slots are in use with nobody there: {_sum(server, _IN_USE):g}"
    for outcome in _NEVER:
        if count := server.metric("foldserve_requests_total", "digits", outcome):
            yield f"{count:g} requests ended as {outcome}"


def _sum(server: Server, names: tuple[str, ...]) -> float:
    return sum(value for key, value in server.metrics().items() if key[0] in names)
