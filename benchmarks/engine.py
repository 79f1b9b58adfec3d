"""The plan against what else runs a network on the same cores, in the same minutes.

    python benchmarks/engine.py [--models resnet18,resnet50] [--batches 1,8] [--cores 0,1] [--device cpu]

Each contender is a process of its own on the same pinned cores; they take turns, so that a noisy neighbour
disturbs all of them alike. A cell is the median of the rounds with the quartiles beside it, and the ratio of
the medians: how many times as fast as eager, and as the contender, foldserve is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from contenders import CONTENDERS

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "densenet121", "efficientnet_b0", "digits")
_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}


@dataclass
class Contender:
    """A process that runs one contender when it is told to."""

    name: str
    child: subprocess.Popen[str]
    start_s: float = 0.0
    answer: Path = Path()
    calls: int = 1
    times: list[float] = field(default_factory=list)

    def began(self) -> bool:
        """Wait for it to be ready; says why where it is not."""
        word, _, rest = self._said().partition(" ")
        if word != "ready":
            print(f"  ({self.name}: {rest or 'ended at its start'})", flush=True)
            self.child.wait()
            return False
        seconds, _, path = rest.partition(" ")
        self.start_s, self.answer = float(seconds), Path(path)
        return True

    def run(self, calls: int) -> float:
        """Seconds per call."""
        print(calls, file=self.child.stdin, flush=True)
        return float(self._said()) / calls

    def end(self) -> None:
        """Let the process go."""
        self.answer.unlink(missing_ok=True)
        self.child.communicate()

    def _said(self) -> str:
        return self.child.stdout.readline().strip() if self.child.stdout else ""


def main() -> None:
    """Measure and print one table per model, precision and batch."""
    arguments = _arguments()
    for model in arguments.models:
        for precision in arguments.precisions:
            for batch in arguments.batches:
                print(f"\n{model}, batch {batch}, {precision}, {arguments.device}, cores {arguments.cores}")
                _print(_measured(model, batch, precision, arguments), precision)


def _measured(model: str, batch: int, precision: str, arguments: argparse.Namespace) -> list[Contender]:
    contenders = []
    for name in CONTENDERS[arguments.device]:
        if arguments.only and name not in arguments.only:
            continue
        task = {"contender": name, "model": model, "batch": batch, "precision": precision}
        task |= {"cores": arguments.cores, "device": arguments.device}
        command = [sys.executable, str(HERE / "contenders.py"), json.dumps(task)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        contender = Contender(name, subprocess.Popen(command, text=True, **pipes))
        if contender.began():
            contenders.append(contender)
    for contender in contenders:
        contender.run(3)
        contender.calls = max(1, int(arguments.seconds / arguments.rounds / contender.run(2)))
    for _ in range(arguments.rounds):
        for contender in contenders:
            contender.run(1)
            contender.times.append(contender.run(contender.calls))
    return contenders


def _print(contenders: list[Contender], precision: str) -> None:
    """The table; ends the contenders."""
    answers = {contender.name: torch.load(contender.answer).double() for contender in contenders}
    medians = {contender.name: statistics.median(contender.times) for contender in contenders}
    print("| contender | ms (quartiles) | start s | x eager | foldserve is |\n|---|---|---|---|---|")
    for contender in contenders:
        reference, answer = answers[contenders[0].name], answers[contender.name]
        error = float((answer - reference).abs().max() / reference.abs().max())
        wrong = f" **wrong by {error:.0e}**" if error > _TOLERANCE[precision] else ""
        low, middle, high = (1000 * value for value in statistics.quantiles(contender.times, n=4))
        print(
            f"| {contender.name}{wrong} | {middle:.3f} ({low:.3f} .. {high:.3f}) | {contender.start_s:.1f} | "
            f"{medians[contenders[0].name] / medians[contender.name]:.2f} | "
            f"{medians[contender.name] / medians.get('foldserve', float('nan')):.2f} |",
            flush=True,
        )
        contender.end()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def words(text: str) -> list[str]:
        return [word.strip() for word in text.split(",")]

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser.add_argument("--models", type=words, default=list(MODELS))
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32])
    parser.add_argument("--precisions", type=words, default=["float32", "bfloat16"])
    parser.add_argument("--cores", type=numbers, default=sorted(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=list(CONTENDERS), default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="per contender and cell")
    parser.add_argument(
        "--only", type=lambda text: text.split(";"), help="contenders, separated by semicolons"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
