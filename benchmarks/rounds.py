"""Rounds: every contender under every load in turn, one window each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import process_tree
from samples import Cell, Sample

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from contender import Bench, Contender
    from payloads import Payload

_DISTURBED = 0.2  # cores that other work takes


@dataclass(frozen=True)
class Network:
    """A stored version and what is sent to it."""

    name: str
    bench: Bench
    payloads: list[Payload]
    seconds: int
    """Of a window."""


def rounds(
    network: Network, contenders: list[Contender], concurrency: int, arguments: argparse.Namespace
) -> Iterator[Sample]:
    """Every payload for every contender in each round; each round begins with another contender."""
    for contender in contenders:
        contender.wake()
        contender.warm_up(network.payloads, concurrency)
        contender.rest()
    for number in range(arguments.rounds):
        first = number % len(contenders)
        for payload in network.payloads:
            for contender in contenders[first:] + contenders[:first]:
                cell = Cell(network.name, payload.name, concurrency)
                windows = (
                    _window(contender, payload, cell, number, network.seconds) for _ in range(arguments.tries)
                )
                yield _least_disturbed(windows)


def _least_disturbed(windows: Iterator[Sample]) -> Sample:
    """The first window that other work left alone, or the best of them."""
    best = next(windows)
    while best.others > _DISTURBED and (again := next(windows, None)):
        best = min(best, again, key=lambda sample: sample.others)
    return best


def _window(contender: Contender, payload: Payload, cell: Cell, number: int, seconds: int) -> Sample:
    contender.wake()
    cores, began = contender.bench.server_cores, time.monotonic()
    before, busy_before = process_tree.cpu_seconds(contender.pid), process_tree.busy_seconds(cores)
    seen = contender.measure(payload, cell.concurrency, seconds)
    spent = process_tree.cpu_seconds(contender.pid) - before
    busy = process_tree.busy_seconds(cores) - busy_before
    others = (busy - spent) / (time.monotonic() - began)
    mib = process_tree.resident_mib(contender.pid)
    contender.rest()
    return Sample(
        cell=cell,
        contender=contender.name,
        round=number,
        per_second=seen.per_second,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        failed=seen.failed,
        cpu_ms=1000 * spent / max(1, seen.answers),
        mib=mib,
        others=max(0.0, others),
    )
