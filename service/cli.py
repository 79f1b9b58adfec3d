"""The command line."""

from __future__ import annotations

import argparse
import os
import re
import signal
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import Progress
from rich.table import Table

from service import __version__, settings
from service.arguments import add_json, add_model
from service.calibration import command as calibration
from service.console import err, out, plain, print_json
from service.doctor import command as doctor
from service.errors import FoldserveError, InvalidConfiguration, UnknownVersion
from service.evaluation import command as evaluation
from service.importing import arguments as import_arguments
from service.importing import command as importing
from service.layers import command as layers
from service.plan import openmp
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.engine.card import ModelCard, ModelFacts
    from service.store.model_store import ModelStore, StoredModel

_MODEL_SETTINGS = ("model_store", "device", "precision", "threads")


class _OnAModel(Protocol):
    """A command on a model of the store: the module of that name in its package."""

    @property
    def SETTINGS(self) -> Sequence[str]: ...  # noqa: N802 - a module's constant
    @property
    def SUMMARY(self) -> str: ...  # noqa: N802
    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...
    def run(self, chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> int: ...


_ON_A_MODEL: dict[str, _OnAModel] = {
    "layers": layers,
    "evaluate": evaluation,
    "calibrate": calibration,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the answer is the process's exit status."""
    openmp.calm(os.environ)  # read when torch is imported
    arguments = vars(_parser().parse_args(argv))
    command: Callable[[Settings, dict[str, Any]], int] = arguments.pop("command")
    flags = {
        name: arguments.pop(name)
        for name in list(arguments)
        if name in Settings.model_fields and arguments[name] is not None
    }
    try:
        return command(settings.read(flags), arguments)
    except FoldserveError as error:
        err.print(f"[bold red]foldserve:[/] {plain(error)}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "foldserve", description="Serve convolutional networks with every BatchNorm folded."
    )
    parser.add_argument("--version", action="version", version=f"foldserve {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Callable[..., int], summary: str, flags: Iterable[str]
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG)
        sub.set_defaults(command=command)
        for flag in flags:
            _add_setting(sub, flag)
        return sub

    flags = [name for name in Settings.model_fields if name != "keys"]  # all may see a command's arguments
    add("serve", _serve, "Fold, prove and serve every model of the store.", flags)
    models = add("models", _models, "List what is in the store.", ("model_store",))
    add_json(models)
    _add_fold_arguments(
        add("fold", _fold, "Fold a model, prove it, and say what became of every norm.", _MODEL_SETTINGS)
    )
    import_arguments.add_to(add("import", importing.run, importing.SUMMARY, importing.SETTINGS))
    for name, on_a_model in _ON_A_MODEL.items():
        run = partial(_run_on_a_model, on_a_model)
        on_a_model.add_arguments(add(name, run, on_a_model.SUMMARY, on_a_model.SETTINGS))
    train = add("train-digits", _train_digits, "Train the shipped digits model anew.", ("model_store",))
    _add_training_arguments(train)
    return parser


def _add_fold_arguments(sub: argparse.ArgumentParser) -> None:
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


def _add_training_arguments(train: argparse.ArgumentParser) -> None:
    train.add_argument("--name", default="digits", help="model to write (default: %(default)s)")
    train.add_argument("--model-version", type=int, default=1, help="version to write (default: %(default)s)")
    train.add_argument("--epochs", type=int, help="passes over the training rows")
    train.add_argument(
        "--seed", type=int, default=0, help="of weights, order and augmentation (default: %(default)s)"
    )
    train.add_argument("--replace", action="store_true", help="replace a version that is there already")


_EPILOG = f"Every setting can also be given in the environment, as {settings.PREFIX}NAME."


def _shape(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){2}", text):
        raise argparse.ArgumentTypeError("three numbers, such as 3,224,224")
    return text


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    described = f"{field.description} Default: {str(field.default) or 'none'}."
    if field.annotation is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=described)
    else:
        parser.add_argument(flag, dest=name, metavar="VALUE", help=described)


# --- serve


def _serve(chosen: Settings, _: dict[str, Any]) -> int:
    # Until somebody listens there is nothing to drain; as a container's first process, a signal would
    # otherwise not even have its default action.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    err.print(f"foldserve {__version__}: loading models from {chosen.model_store}", soft_wrap=True)
    from service import app

    return app.serve(chosen, lambda cards, address: _greet(chosen, cards, address))


def _greet(chosen: Settings, cards: list[ModelCard], address: str) -> None:
    """The start-up summary: what is served, what was folded, how exact it is, how long it took."""
    for card in cards:
        _print_summary(card.facts)
    then = " Try:" if cards else " No model is served yet."
    err.print(f"[bold green]ready[/] at {address} (documentation at {address}/docs).{then}", soft_wrap=True)
    if cards:
        err.print(f"  {_curl(chosen, cards[0], address)}", soft_wrap=True, markup=False)


def _print_summary(facts: ModelFacts) -> None:
    fold, parity = facts.fold, facts.fold["parity"]
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in facts.seconds.items())
    err.print(
        f"[bold]{facts.model}/{facts.version}[/]: {fold['folded']} of {fold['norms']} norms folded; "
        f"relative error {parity['max_relative_error']:.1e} against float64 "
        f"(unfolded {parity['unfolded_relative_error']:.1e}); {facts.precision} on {facts.device}; "
        f"{sum(facts.seconds.values()):.2f} s ({steps})",
        soft_wrap=True,
    )


def _curl(chosen: Settings, card: ModelCard, address: str) -> str:
    facts = card.facts
    example = facts.manifest.input.example
    image = "IMAGE.png"
    if example:
        image = str(Path(chosen.model_store) / facts.model / str(facts.version) / example)
    media_type = "image/jpeg" if image.endswith((".jpg", ".jpeg")) else "image/png"
    key = "-H 'Authorization: Bearer KEY' " if chosen.keys or chosen.keys_file else ""
    return (
        f"curl {key}-H 'Content-Type: {media_type}' --data-binary @{image} "
        f"{address}/v1/models/{facts.model}/predict"
    )


# --- models, fold


def _models(chosen: Settings, arguments: dict[str, Any]) -> int:
    store = _store(chosen)
    stored = [store.open(name, version) for name in store.names() for version in store.versions(name)]
    if arguments["json"]:
        print_json(
            [{"model": s.name, "version": s.version, "manifest": s.manifest.model_dump()} for s in stored]
        )
        return 0
    table = Table("model", "version", "architecture", "input", "task", "precision", box=None)
    for model in stored:
        manifest = model.manifest
        shape = "x".join(map(str, manifest.input.shape))
        table.add_row(
            model.name,
            str(model.version),
            manifest.architecture or "exported program",
            f"{manifest.input.colour} {shape}",
            manifest.output.task,
            manifest.serving.precision,
        )
    out.print(table)
    return 0


def _fold(chosen: Settings, arguments: dict[str, Any]) -> int:
    model, seed = arguments["model"], arguments["random_stats"]
    if arguments["write_reference"]:
        _write_reference(chosen, model, seed)
    if seed is None:
        facts = _loaded(chosen, model)
        report, plan = facts.fold, facts.plan
    else:
        report, plan = _dry_run(chosen, model, seed, arguments["input"])
    parity = report["parity"]
    if arguments["json"]:
        print_json({"model": model, **report, **({"plan": plan} if arguments["plan"] else {})})
        return 0
    if arguments["plan"]:
        _print_plan(plan)
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
    return 0


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
    stored = _stored(chosen, model)
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
    stored = _stored(chosen, model)
    from service.engine.unfolded import write_reference
    from service.plan import device

    device.set_threads(chosen.threads)
    with err.status(f"computing the reference answers of {stored}"):
        file = write_reference(stored)
    err.print(f"wrote {stored}/{file.name}")


def _stored(chosen: Settings, model: str) -> StoredModel:
    """A model of the store by `NAME` or `NAME/VERSION`."""
    name, slash, version = model.partition("/")
    store = _store(chosen)
    served = store.versions(name)
    if slash and not re.fullmatch("[1-9][0-9]{0,17}", version):
        raise UnknownVersion(
            f"model {name!r} has no version {version!r}; it has {', '.join(map(str, served))}"
        )
    return store.open(name, int(version) if slash else None)


def _run_on_a_model(command: _OnAModel, chosen: Settings, arguments: dict[str, Any]) -> int:
    return command.run(chosen, _stored(chosen, arguments["model"]), arguments)


# --- train-digits


def _train_digits(chosen: Settings, arguments: dict[str, Any]) -> int:
    from service.network import training

    epochs = training.EPOCHS if arguments["epochs"] is None else arguments["epochs"]
    with Progress(console=err) as bar:
        task = bar.add_task("training", total=epochs)
        trained = training.train_digits(
            _store(chosen),
            name=arguments["name"],
            version=arguments["model_version"],
            epochs=epochs,
            seed=arguments["seed"],
            replace=arguments["replace"],
            progress=lambda now: bar.update(task, completed=now.epoch, description=f"loss {now.loss:.4f}"),
        )
    from service.engine.unfolded import write_reference

    write_reference(_store(chosen).open(arguments["name"], arguments["model_version"]))
    out.print(
        f"{trained.correct} of {trained.held_out_rows} held-out digits right ({trained.accuracy:.2%}); "
        f"wrote {arguments['name']}/{arguments['model_version']}"
    )
    return 0


# --- all of them


def _store(chosen: Settings) -> ModelStore:
    from service.store.model_store import ModelStore

    return ModelStore(chosen.model_store)
