"""A plan whose cores are not its own: OpenMP's threads that wait spin as long as they do, or sleep sooner.

    python benchmarks/contention.py [--cores 2] [--models digits,resnet18]

Prints milliseconds per row at batch 1, median and 95th percentile: alone on its cores, and with another
process busy on one of them. What foldserve chooses is in `service/plan/openmp.py`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from plans import random_plan

POLICIES: dict[str, dict[str, str]] = {
    "as torch comes": {},
    "sleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"sleep after {spins} spins": {"GOMP_SPINCOUNT": spins} for spins in ("2000", "5000", "10000")},
}
BUSY = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main() -> None:
    """Run one child for each model and policy: the policy is read when torch is loaded."""
    arguments = _arguments()
    if arguments.child:
        _measure(arguments.models, arguments.cores)
        return
    print("| model | threads that wait | alone, ms | one core taken, ms |")
    print("|---|---|---|---|", flush=True)
    for model in arguments.models.split(","):
        for words, policy in POLICIES.items():
            environment = {**os.environ, **policy}
            command = [sys.executable, __file__, "--child", "--models", model, f"--cores={arguments.cores}"]
            answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            print(f"| {model} | {words} | {answer.stdout.strip()} |", flush=True)


def _measure(model: str, cores: int) -> None:
    own = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, own)
    torch.set_num_threads(len(own))
    plan, row = random_plan(model, max_batch=1)
    rows = torch.randn(1, *row)

    def times() -> str:
        values = []
        until = time.perf_counter() + 5
        while time.perf_counter() < until:
            started = time.perf_counter()
            plan(rows)
            values.append((time.perf_counter() - started) * 1000)
        return f"{statistics.median(values):.2f} (p95 {statistics.quantiles(values, n=20)[-1]:.2f})"

    times()
    alone = times()
    with subprocess.Popen([sys.executable, "-c", BUSY, str(own[-1])]) as busy:
        time.sleep(0.5)
        print(f"{alone} | {times()}")
        busy.kill()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--models", default="digits,resnet18")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
