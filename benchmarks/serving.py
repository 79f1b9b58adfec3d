"""The whole service over HTTP, beside its own engine, bare FastAPI and what people serve with, in one run.

    python benchmarks/serving.py [--quick] [--networks resnet18,digits] [--payloads tensor,jpeg-224]
        [--concurrency 1,8,32,64] [--contenders foldserve,in-process,bare] [--json FILE]

The load comes from another process on a core of its own: wrk for the closed loop (Debian and Ubuntu:
apt-get install wrk), `open_loop.py` for fixed rates. All contenders are started on the server's cores and
take turns of a few seconds, one at a time while the others rest; the order rotates, and ratios are taken
within each round. Latencies are wrk's; CPU time and memory are those of the server's whole tree of processes.

Every contender finds the server's cores as they are, and nothing of foldserve's is pinned for it. OpenMP's
threads sleep soon when they wait (GOMP_SPINCOUNT=5000), for the peers as for foldserve. Peers batch up to
what foldserve computes at once. LitServe comes with `pip install 'foldserve[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import overload
import payloads
import process_tree
import report
import stores
import wrk
from absent import AbsentError
from contender import Bench
from contenders import CONTENDERS
from rounds import Network, rounds
from samples import Cell, Samples, spread

from service.engine.placement import split
from service.plan.cores import owned_cores
from service.settings import Settings
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from contender import Contender


CONCURRENCY = (1, 8, 32, 64)
NETWORKS = ("resnet18", "digits")
_RESIZE = {"resnet18": 256}  # images are cropped from this, as in the usual evaluation
_MAX_BATCH = {"resnet18": 8}  # what peers batch: what foldserve computes at once
_SHIPPED = "digits"
_QUICK_WHERE_SLOW = ("foldserve", "in-process", "batched-folded")


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if not wrk.is_installed():
        raise SystemExit(wrk.MISSING)
    samples, offered, started = Samples(), [], time.monotonic()
    _print_head(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            network = _network(name, Path(folder), arguments)
            _measure(network, samples, arguments)
            if arguments.overload:
                offered.append(_overloaded(network, arguments))
                _print(overload.report(offered[-1]))
            _write(arguments, samples, offered)
    if lines := list(report.targets(samples)):
        print("\n**What it must show**\n")
        _print(iter(lines))
    others = spread(sample.others for sample in samples.all)
    print(
        f"\n{time.monotonic() - started:.0f} s; other work took {others[1]:.2f} "
        f"({others[0]:.2f} .. {others[2]:.2f}) of the server's {len(arguments.server_cores)} cores"
    )


def _network(name: str, folder: Path, arguments: argparse.Namespace) -> Network:
    if name == _SHIPPED:
        stored = ModelStore(stores.ROOT / "model_store").open(name)
    else:
        stored = stores.publish_with_reference(folder / "store", name, resize=_RESIZE.get(name))
    shape = stored.manifest.input.shape
    is_slow = name != _SHIPPED
    bench = Bench(
        store=stored.folder.parents[1],
        model=name,
        max_batch=_MAX_BATCH.get(name, stored.manifest.serving.max_batch),
        server_cores=arguments.server_cores,
        load_core=arguments.load_core,
        workers=arguments.workers or _workers(arguments.server_cores),
        is_slow=is_slow,
        flags=(*arguments.flags.split(), *_workers_flag(arguments)),
    )
    # Images of 224 and 500 pixels say something about networks that take such images.
    wanted = [p for p in arguments.payloads if is_slow or not p.startswith("jpeg")]
    seconds = 2 * arguments.seconds if is_slow else arguments.seconds
    return Network(name, bench, [payloads.write(p, shape, folder) for p in wanted], seconds)


def _measure(network: Network, samples: Samples, arguments: argparse.Namespace) -> None:
    contenders = _started(network, arguments)
    try:
        _print_rest(contenders)
        for concurrency in arguments.concurrency:
            for sample in rounds(network, contenders, concurrency, arguments):
                samples.all.append(sample)
            for payload in network.payloads:
                cell = Cell(network.name, payload.name, concurrency)
                reference = arguments.against or report.reference_of(network.name)
                _print(report.table(samples, cell, reference))
    finally:
        for contender in contenders:
            contender.stop()


def _started(network: Network, arguments: argparse.Namespace) -> list[Contender]:
    """Those that can be measured here, ready and at rest."""
    names = arguments.contenders
    if arguments.quick and network.bench.is_slow:
        names = [name for name in names if name in _QUICK_WHERE_SLOW]
    wanted = [CONTENDERS[name](network.bench) for name in names]
    started = [contender for contender in wanted if _can(contender.start, contender.name)]
    ready = [c for c in started if _can(partial(c.wait, network.payloads[0]), c.name)]
    for contender in started:
        if contender in ready:
            contender.rest()
        else:
            contender.stop()
    return ready


def _can(do: Callable[[], None], name: str) -> bool:
    try:
        do()
    except AbsentError as reason:
        print(f"({name}: left out, {reason})", flush=True)
        return False
    return True


def _overloaded(network: Network, arguments: argparse.Namespace) -> dict[str, Any]:
    return overload.measured(
        network.bench,
        network.payloads[0],
        rows=arguments.queue,
        times=arguments.overload,
        seconds=max(5, network.seconds),
    )


def _print_head(arguments: argparse.Namespace) -> None:
    cores = ",".join(map(str, arguments.server_cores))
    workers = arguments.workers or _workers(arguments.server_cores)
    print(
        f"server on cores {cores}, load on core {arguments.load_core}; {arguments.rounds} rounds; "
        f"{workers} HTTP worker(s) for peers that have several; "
        f"load average {os.getloadavg()[0]:.2f}\n"
    )
    for name in arguments.contenders:
        print(f"- {name}: {CONTENDERS[name].words}")


def _print_rest(contenders: list[Contender]) -> None:
    """What the contenders take while nobody asks: it disturbs whoever is measured."""
    before = [process_tree.cpu_seconds(contender.pid) for contender in contenders]
    time.sleep(1)
    for contender, spent in zip(contenders, before, strict=True):
        share = process_tree.cpu_seconds(contender.pid) - spent
        if share > 0.02:
            print(f"({contender.name} takes {share:.0%} of a core at rest)", flush=True)


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)


def _write(arguments: argparse.Namespace, samples: Samples, offered: list[dict[str, Any]]) -> None:
    if arguments.json:
        content = {"samples": [asdict(sample) for sample in samples.all], "overload": offered}
        arguments.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = sorted(os.sched_getaffinity(0))
    add = parser.add_argument
    add("--networks", type=_listed(str), default=list(NETWORKS))
    add("--payloads", type=_listed(str), default=list(payloads.PAYLOADS))
    add("--concurrency", type=_listed(int), default=list(CONCURRENCY))
    add("--contenders", type=_listed(str), default=list(CONTENDERS))
    add("--against", help="the contender of the last column (default: in-process; bare for digits)")
    add("--rounds", type=int, default=5)
    add(
        "--tries",
        type=int,
        default=1,
        help="at a window that other work disturbs; the least disturbed counts",
    )
    add("--seconds", type=int, default=2, help="of a window; twice that for networks that are slow")
    add("--server-cores", type=_cores, default=tuple(own[1:4]), help="such as 1-3 or 1,2,3 (default)")
    add("--load-core", type=int, default=own[0])
    add("--workers", type=int, help="HTTP processes of foldserve and of the peers that have several")
    add("--flags", default="", help="more flags of foldserve serve, in one word")
    add(
        "--overload",
        type=_listed(float),
        default=[0.5, 2.0],
        help="times the capacity, open loop; '' for none",
    )
    add("--queue", type=int, default=64, help="rows that may wait while foldserve is overloaded")
    add("--json", type=Path, help="where to write every sample")
    add("--quick", action="store_true", help="two rounds of what matters most, in under three minutes")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.payloads, arguments.concurrency = ["tensor"], [1, 32]
        arguments.rounds, arguments.seconds, arguments.overload = 2, 1, []
    unknown = {*arguments.contenders} - {*CONTENDERS} | {*arguments.payloads} - {*payloads.PAYLOADS}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return arguments


def _workers(cores: Sequence[int]) -> int:
    """As many as foldserve starts on these cores where nobody asks for a number."""
    return split(Settings(), cores, min(len(cores), owned_cores())).workers


def _workers_flag(arguments: argparse.Namespace) -> tuple[str, ...]:
    return (f"--workers={arguments.workers}",) if arguments.workers else ()


def _listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",") if part]


def _cores(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


if __name__ == "__main__":
    main()
