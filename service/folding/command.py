"""`foldserve fold`: a model folded and proven as serving would, or an architecture in a dry run."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.arguments import add_json, add_model
from service.console import err, out, print_json
from service.errors import InvalidConfiguration
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    from service.engine.card import ModelFacts
    from service.settings import Settings

SETTINGS = ("model_store", "device", "precision", "threads")
SUMMARY = "Fold a model, prove it, and say what became of every norm."


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """Which model, or which architecture of a dry run, and what to print."""
    add_model(sub)
    add_json(sub)
    sub.add_argument("--plan", action="store_true", help="show the calls that the folded network became, too")
    sub.add_argument(
        "--write-reference",
        action="store_true",
        help="compute the float64 answers of the proof and store them beside the weights, for quicker starts",
    )
    sub.add_argument(
        "--random-stats",
        type=int,
        metavar="SEED",
        help="a dry run: MODEL is an architecture, such as resnet50, and gets random statistics",
    )
    sub.add_argument(
        "--input", type=_shape, metavar="C,H,W", help="the row of a dry run (default: the architecture's own)"
    )


def _shape(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){2}", text):
        raise argparse.ArgumentTypeError("three numbers, such as 3,224,224")
    return text


def run(chosen: Settings, arguments: dict[str, Any]) -> int:
    """Fold and print; the answer is the process's exit status."""
    model, seed = arguments["model"], arguments["random_stats"]
    if arguments["write_reference"]:
        _write_reference(chosen, model, seed)
    if seed is None:
        facts = _loaded(chosen, model)
        report, plan = facts.fold, facts.plan
    else:
        report, plan = _dry_run(chosen, model, seed, arguments["input"])
    if arguments["json"]:
        print_json({"model": model, **report, **({"plan": plan} if arguments["plan"] else {})})
        return 0
    if arguments["plan"]:
        _print_plan(plan)
    _print_report(report)
    return 0


def _print_report(report: dict[str, Any]) -> None:
    parity = report["parity"]
    table = Table("norm", "outcome", "partner", "reason", box=None)
    for layer in report["layers"]:
        colour = "yellow" if layer["outcome"] == "kept" else "green"
        table.add_row(
            layer["name"], f"[{colour}]{layer['outcome']}[/]", layer["partner"] or "", layer["reason"]
        )
    out.print(table)
    out.print(
        f"\n{report['folded']} of {report['norms']} norms folded, {report['kept']} kept. "
        f"Relative error {parity['max_relative_error']:.1e} against float64 "
        f"(unfolded: {parity['unfolded_relative_error']:.1e}, tolerance {parity['tolerance']:.0e}), "
        f"top-1 agreement {parity['top1_agreement']:.0%} of {parity['rows']} rows."
    )
    if report["golden"]:
        out.print(
            f"{report['golden']['rows']} golden inputs checked: "
            f"relative error {report['golden']['max_relative_error']:.1e}."
        )


def _print_plan(plan: list[dict[str, Any]]) -> None:
    table = Table("call", "op", "epilogue", "row", "backend", box=None)
    for step in plan:
        shape = "x".join(map(str, step["shape"]))
        table.add_row(step["name"], step["op"], step["epilogue"], shape, step["backend"])
    out.print(table)
    out.print()


def _dry_run(
    chosen: Settings, architecture: str, seed: int, shape: str | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The fold report and the plan of an architecture with random statistics; no store is needed."""
    import torch

    from service.graph import fold
    from service.network import catalog
    from service.network.random_stats import randomise
    from service.plan import device
    from service.plan.plan import PRECISIONS, lower
    from service.plan.preprocessing import Preprocessing

    torch.manual_seed(seed)
    device.set_threads(chosen.threads)
    on = device.choose(chosen.device)
    precision = PRECISIONS["float32" if chosen.precision == "manifest" else chosen.precision].on(on)
    with err.status(f"folding {architecture}"):
        network = catalog.build(architecture, {})
        randomise(network, seed)
        row = catalog.input_shape(network) if shape is None else [int(size) for size in shape.split(",")]
        folded = fold(network, torch.zeros(2, *row))
        plan = lower(
            folded.module,
            Preprocessing([0.0] * row[0], [1.0] * row[0]),
            precision=precision.dtype,
            allow_tf32=precision.allow_tf32,
            device=on,
            max_batch=1,
        )
    return folded.report.as_dict(), [asdict(step) for step in plan.programs[-1].steps]


def _loaded(chosen: Settings, model: str) -> ModelFacts:
    """The facts of a model, loaded as the engine would load it."""
    stored = ModelStore(chosen.model_store).named(model)
    from service.engine.loading import load
    from service.plan import device

    device.set_threads(chosen.threads)
    precision = None if chosen.precision == "manifest" else chosen.precision
    with err.status(f"folding {stored}"):
        return load(
            stored, device.choose(chosen.device), precision=precision, threads=chosen.threads
        ).card.facts


def _write_reference(chosen: Settings, model: str, seed: int | None) -> None:
    if seed is not None:
        raise InvalidConfiguration("--write-reference is for a model of the store, not for a dry run")
    stored = ModelStore(chosen.model_store).named(model)
    from service.engine.unfolded import write_reference
    from service.plan import device

    device.set_threads(chosen.threads)
    with err.status(f"computing the reference answers of {stored}"):
        file = write_reference(stored)
    err.print(f"wrote {stored}/{file.name}")
