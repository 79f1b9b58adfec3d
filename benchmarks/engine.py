"""The plan against what else runs a network on the same cores, in the same minutes.

    python benchmarks/engine.py [--models resnet18,resnet50] [--batches 1,8] [--cores 0,1] [--json FILE]

Each contender is a process of its own on the same pinned cores. They take short turns, so that a noisy
neighbour and a core that changes its clock disturb all of them alike, and a ratio is taken within each round:
how many times as fast as the contender foldserve was. A cell is the median of the rounds with the quartiles
beside it. `benchmarks/picture.py` draws what `--json` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import roofline
from engine_contender import ENGINES

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    results: list[dict[str, Any]] = []
    for model, precision, batch in product(arguments.models, arguments.precisions, arguments.batches):
        cell = {"model": model, "batch": batch, "precision": precision, "cores": len(arguments.cores)}
        print(f"\n{model}, batch {batch}, {precision}, {arguments.device}, cores {arguments.cores}")
        print("| contender | ms (quartiles) | start s | x eager | foldserve is (quartiles) |")
        print("|---|---|---|---|---|")
        for row in _rows(_measured(model, batch, precision, arguments), precision):
            print(_line(row), flush=True)
            results.append({**cell, **row})
        if arguments.device == "cuda":
            _print_roofline(model, batch, precision)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1))


def _measured(model: str, batch: int, precision: str, arguments: argparse.Namespace) -> list[Contender]:
    contenders = []
    for name in ENGINES[arguments.device]:
        if arguments.only and name not in arguments.only:
            continue
        task = {"contender": name, "model": model, "batch": batch, "precision": precision}
        task |= {"cores": arguments.cores, "device": arguments.device}
        command = [sys.executable, str(HERE / "engine_contender.py"), json.dumps(task)]
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


def _rows(contenders: list[Contender], precision: str) -> Iterator[dict[str, Any]]:
    """One row of the table for each contender, which ends."""
    answers = {contender.name: torch.load(contender.answer).double() for contender in contenders}
    times = {contender.name: contender.times for contender in contenders}
    eager, ours = times[contenders[0].name], times.get("foldserve")
    reference = answers[contenders[0].name]
    for contender in contenders:
        contender.end()
        error = float((answers[contender.name] - reference).abs().max() / reference.abs().max())
        yield {
            "contender": contender.name,
            "ms": _quartiles([1000 * seconds for seconds in contender.times]),
            "start_s": contender.start_s,
            "times_eager": statistics.median(_ratios(eager, contender.times)),
            "foldserve_is": _quartiles(_ratios(contender.times, ours)) if ours else None,
            "error": error,
            "is_wrong": error > _TOLERANCE[precision],
        }


def _print_roofline(model: str, batch: int, precision: str) -> None:
    name = torch.cuda.get_device_name()
    device = roofline.named(name)
    if device is None:
        print(f"(no roofline: {name} is not known to roofline.py)", flush=True)
        return
    least = roofline.seconds(roofline.work(roofline.folded(model)), batch, precision, device)
    print(f"roofline of {name}, layer by layer: {1000 * least:.3f} ms", flush=True)


def _ratios(theirs: list[float], ours: list[float]) -> list[float]:
    """How many times as fast ours is, round by round."""
    return [one / other for one, other in zip(theirs, ours, strict=True)]


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4)


def _line(row: dict[str, Any]) -> str:
    low, middle, high = row["ms"]
    wrong = f" **wrong by {row['error']:.0e}**" if row["is_wrong"] else ""
    ours = "{1:.2f} ({0:.2f} .. {2:.2f})".format(*row["foldserve_is"]) if row["foldserve_is"] else ""
    return (
        f"| {row['contender']}{wrong} | {middle:.3f} ({low:.3f} .. {high:.3f}) | {row['start_s']:.1f} | "
        f"{row['times_eager']:.2f} | {ours} |"
    )


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
    parser.add_argument("--device", choices=list(ENGINES), default="cpu")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=3.0, help="per contender and cell")
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument(
        "--only", type=lambda text: text.split(";"), help="contenders, separated by semicolons"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
