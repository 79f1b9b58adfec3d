"""The command line."""

from __future__ import annotations

import argparse
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, get_origin

from rich.table import Table

from service import __version__, configuration, settings
from service.arguments import add_json
from service.calibration import command as calibration
from service.console import err, out, plain, print_json
from service.doctor import command as doctor
from service.errors import FoldserveError
from service.evaluation import command as evaluation
from service.folding import command as folding
from service.greeting import greet
from service.importing import arguments as import_arguments
from service.importing import command as importing
from service.layers import command as layers
from service.plan import openmp
from service.settings import Settings
from service.store.model_store import ModelStore
from service.training import command as training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from service.store.model_store import StoredModel


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
    form = arguments.pop("show_config", None)
    try:
        chosen = settings.read(flags)
        if form:
            return configuration.show(chosen, settings.sources(flags), form)
        return command(chosen, arguments)
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
        sub = commands.add_parser(name, help=summary, description=summary, epilog=_EPILOG, allow_abbrev=False)
        sub.set_defaults(command=command)
        for flag in flags:
            _add_setting(sub, flag)
        return sub

    flags = [name for name in Settings.model_fields if name != "keys"]  # all may see a command's arguments
    served = add("serve", _serve, "Fold, prove and serve every model of the store.", flags)
    served.add_argument("--show-config", **configuration.FLAG)
    models = add("models", _models, "List what is in the store.", ("model_store",))
    add_json(models)
    folding.add_arguments(add("fold", folding.run, folding.SUMMARY, folding.SETTINGS))
    import_arguments.add_to(add("import", importing.run, importing.SUMMARY, importing.SETTINGS))
    for name, on_a_model in _ON_A_MODEL.items():
        run = partial(_run_on_a_model, on_a_model)
        on_a_model.add_arguments(add(name, run, on_a_model.SUMMARY, on_a_model.SETTINGS))
    training.add_arguments(add("train-digits", training.run, training.SUMMARY, training.SETTINGS))
    return parser


_EPILOG = f"Every setting can also be given in the environment, as {settings.PREFIX}NAME."


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    field = Settings.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    described = f"{field.description} Default: {str(field.default) or 'none'}."
    if field.annotation is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=described)
    else:
        # Not as `choices`: a wrong value is refused where one of the environment is, and in the same words.
        allowed = f"{{{','.join(get_args(field.annotation))}}}" if _is_literal(field.annotation) else "VALUE"
        parser.add_argument(flag, dest=name, metavar=allowed, help=described)


def _is_literal(annotation: object) -> bool:
    return get_origin(annotation) is Literal


# --- serve


def _serve(chosen: Settings, _: dict[str, Any]) -> int:
    # Until somebody listens there is nothing to drain; as a container's first process, a signal would
    # otherwise not even have its default action.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    err.print(f"foldserve {__version__}: loading models from {chosen.model_store}", soft_wrap=True)
    from service import app

    return app.serve(chosen, lambda cards, address: greet(chosen, cards, address))


# --- models


def _models(chosen: Settings, arguments: dict[str, Any]) -> int:
    store = ModelStore(chosen.model_store)
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


def _run_on_a_model(command: _OnAModel, chosen: Settings, arguments: dict[str, Any]) -> int:
    return command.run(chosen, ModelStore(chosen.model_store).named(arguments["model"]), arguments)
