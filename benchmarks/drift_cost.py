"""What drift costs: the service with it off and on, in turns of a second or two under one load.

    python benchmarks/drift_cost.py [--networks digits,resnet18] [--concurrency 1,8,32] [--rounds 20]

No two requests send the same row, since copies are not looked at twice. All come from one address, of which
a quarter of the sample counts; `on, many clients` makes up for that with four times the share. The last
column is the time that went into it, which is 1 % at most by default. Needs wrk, as `serving.py` does.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import payloads
import stores
import wrk
from contender import Bench
from contenders import Foldserve

from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from payloads import Payload
    from wrk import Window

_VARIANTS = {
    "off": ("--drift=off",),
    "on": ("--drift=all",),
    "on, many clients": ("--drift=all", "--drift-share=0.04"),
}


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    if not wrk.is_installed():
        raise SystemExit(wrk.MISSING)
    print(
        f"load average {os.getloadavg()[0]:.2f}; {arguments.rounds} rounds of {arguments.seconds} s",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks.split(","):
            _network(name, Path(folder), arguments)


def _network(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    is_shipped = name == "digits"
    stored = (
        ModelStore(stores.ROOT / "model_store").open(name)
        if is_shipped
        else stores.publish_with_reference(folder / "store", name)
    )
    payload = dataclasses.replace(payloads.write("tensor", stored.manifest.input.shape, folder), varies=True)
    services = {
        variant: _service(stored.folder.parents[1], name, flags) for variant, flags in _VARIANTS.items()
    }
    try:
        for service in services.values():
            service.start()
        for service in services.values():
            service.wait(payload)
        for concurrency in map(int, arguments.concurrency.split(",")):
            _compare(name, services, payload, concurrency, arguments)
    finally:
        for service in services.values():
            service.stop()


def _service(store: Path, model: str, flags: tuple[str, ...]) -> Foldserve:
    cores = sorted(os.sched_getaffinity(0))
    return Foldserve(
        Bench(
            store=store,
            model=model,
            max_batch=0,
            server_cores=tuple(cores[1:4]) or tuple(cores),
            load_core=cores[0],
            workers=1,
            is_slow=model != "digits",
            flags=(*flags, "--workers=1"),
        )
    )


def _compare(
    name: str,
    services: dict[str, Foldserve],
    payload: Payload,
    concurrency: int,
    arguments: argparse.Namespace,
) -> None:
    """Each in turn, in every round; another begins each time."""
    windows: dict[str, list[Window]] = {variant: [] for variant in services}
    spent = dict.fromkeys(services, 0.0)
    wall = dict(spent)
    variants = list(services)
    for service in services.values():
        service.warm_up([payload], concurrency)
    for number in range(arguments.rounds):
        turn = number % len(variants)
        for variant in variants[turn:] + variants[:turn]:
            before, began = _drift_seconds(services[variant]), time.monotonic()
            windows[variant].append(services[variant].measure(payload, concurrency, arguments.seconds))
            spent[variant] += _drift_seconds(services[variant]) - before
            wall[variant] += time.monotonic() - began
    print(f"\n{name}, concurrency {concurrency}\n")
    print("| drift | answers/s | of off, median by round | p99 ms, median | of off | failed | time for it |")
    print("|---|---|---|---|---|---|---|")
    for variant, seen in windows.items():
        rates = [w.per_second / o.per_second for w, o in zip(seen, windows["off"], strict=True)]
        p99 = statistics.median(w.p99_ms for w in seen)
        off = statistics.median(w.p99_ms for w in windows["off"])
        rate = statistics.median(w.per_second for w in seen)
        failed, share = sum(w.failed for w in seen), spent[variant] / wall[variant]
        print(f"| {variant} | {rate:.0f} | {_spread(rates)} | {p99:.3f} | ", end="")
        print(f"{p99 / off:.3f} | {failed} | {share:.2%} |", flush=True)


def _spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} .. {high:.3f})"


def _drift_seconds(service: Foldserve) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=30) as answer:
        found = re.search(rb"^foldserve_drift_work_seconds_total\S* (\S+)", answer.read(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="digits,resnet18")
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
