"""What the access log costs: the service without it, with it as text and as JSON, in turns under one load.

    python benchmarks/access_log_cost.py [--concurrency 1,32] [--rounds 20] [--seconds 2]

The digits, whose answers take least, so that a line weighs most. Lines go to a file. Ratios are taken within
each round, of which another variant begins each. Needs wrk, as `serving.py` does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import payloads
import process_tree
import stores
import wrk
from contender import Bench
from contenders import Foldserve

from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from payloads import Payload
    from wrk import Window

_VARIANTS = {
    "off": ("--no-access-log",),
    "text": ("--access-log", "--log-format=text"),
    "json": ("--access-log", "--log-format=json"),
}


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if not wrk.is_installed():
        raise SystemExit(wrk.MISSING)
    print(f"load average {os.getloadavg()[0]:.2f}; {arguments.rounds} rounds of {arguments.seconds} s")
    stored = ModelStore(stores.ROOT / "model_store").open("digits")
    services = {variant: _service(stored.folder.parents[1], flags) for variant, flags in _VARIANTS.items()}
    with tempfile.TemporaryDirectory() as folder:
        payload = payloads.write("tensor", stored.manifest.input.shape, Path(folder))
        try:
            for service in services.values():
                service.start()
            for service in services.values():
                service.wait(payload)
            for concurrency in map(int, arguments.concurrency.split(",")):
                _compare(services, payload, concurrency, arguments)
        finally:
            for service in services.values():
                service.stop()


def _service(store: Path, flags: tuple[str, ...]) -> Foldserve:
    cores = sorted(os.sched_getaffinity(0))
    return Foldserve(
        Bench(
            store=store,
            model="digits",
            max_batch=0,
            server_cores=tuple(cores[1:4]) or tuple(cores),
            load_core=cores[0],
            workers=1,
            is_slow=False,
            flags=(*flags, "--workers=1"),
        )
    )


def _compare(
    services: dict[str, Foldserve], payload: Payload, concurrency: int, arguments: argparse.Namespace
) -> None:
    windows: dict[str, list[Window]] = {variant: [] for variant in services}
    cpu_ms: dict[str, list[float]] = {variant: [] for variant in services}
    variants = list(services)
    for service in services.values():
        service.warm_up([payload], concurrency)
    for number in range(arguments.rounds):
        turn = number % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            service = services[variant]
            before = process_tree.cpu_seconds(service.pid)
            windows[variant].append(seen := service.measure(payload, concurrency, arguments.seconds))
            spent = process_tree.cpu_seconds(service.pid) - before
            cpu_ms[variant].append(1000 * spent / max(1, seen.answers))
    _print(windows, cpu_ms, concurrency)


def _print(windows: dict[str, list[Window]], cpu_ms: dict[str, list[float]], concurrency: int) -> None:
    print(f"\ndigits, concurrency {concurrency}\n")
    print(
        "| access log | answers/s | of off, median by round | p99 ms | CPU ms an answer | of off | failed |"
    )
    print("|---|---|---|---|---|---|---|")
    for variant, seen in windows.items():
        rates = [w.per_second / o.per_second for w, o in zip(seen, windows["off"], strict=True)]
        work = [one / other for one, other in zip(cpu_ms[variant], cpu_ms["off"], strict=True)]
        rate = statistics.median(w.per_second for w in seen)
        p99 = statistics.median(w.p99_ms for w in seen)
        failed = sum(w.failed for w in seen)
        print(f"| {variant} | {rate:.0f} | {_spread(rates)} | {p99:.3f} | ", end="")
        print(f"{statistics.median(cpu_ms[variant]):.4f} | {_spread(work)} | {failed} |", flush=True)


def _spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} .. {high:.3f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", default="1,32")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
