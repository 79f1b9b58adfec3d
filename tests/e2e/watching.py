"""Looking at a service of which parts may be dead, over connections of one's own."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import httpx

from .server import PATIENCE, Server, Service

if TYPE_CHECKING:
    from collections.abc import Mapping


def scrape(server: Server) -> Mapping[tuple[str, ...], float]:
    """The metrics; asked for again where the worker dies that was asked."""
    while True:
        with suppress(httpx.TransportError), closing(Service(server.address)) as once:
            return once.metrics()


def status(server: Server, path: str) -> int:
    """Of an answer; 0 where the connection is closed instead."""
    try:
        return httpx.get(server.address + path, timeout=PATIENCE, trust_env=False).status_code
    except httpx.TransportError:
        return 0


def is_idle(server: Server) -> bool:
    """Whether nobody holds a row or a slot."""
    now = scrape(server)
    return not now["foldserve_waiting_rows",] and not now["foldserve_slots_in_use",]


def is_well(server: Server, workers: int = 2) -> bool:
    """Whether it is ready, everybody is up, and nobody holds a row or a slot."""
    now = scrape(server)
    return now["foldserve_ready",] == 1 and now["foldserve_workers",] == workers and is_idle(server)


def restarts(server: Server, process: str) -> float:
    """How many processes of this kind took the place of a dead one."""
    return scrape(server)["foldserve_restarts_total", process]


def counts_back(before: Mapping[tuple[str, ...], float], after: Mapping[tuple[str, ...], float]) -> list[str]:
    """The counters that went back, or away; not those of single processes."""
    counted = [name for name in before if re.search(r"_(total|count|sum|bucket)$", name[0])]
    ours = [name for name in counted if not name[0].startswith("foldserve_process_")]
    back = [name for name in ours if after.get(name, -1.0) < before[name]]
    return [f"{name}: {before[name]} to {after.get(name)}" for name in back]
