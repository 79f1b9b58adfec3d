"""The command `foldserve import`: which of the sources its arguments mean, and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.console import err, out
from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from pathlib import Path

    from service.importing.architecture import Wishes
    from service.importing.publishing import Report
    from service.importing.source import Source
    from service.settings import Settings
    from service.store.manifest import Input

SETTINGS = ("model_store", "device", "threads")
SUMMARY = "Bring a network of one's own into the store: checked, folded and proven first."

_KEPT_NAMED_AT_MOST = 8


def run(chosen: Settings, arguments: dict[str, Any]) -> int:
    """Import what the command line names; what was found is printed before the version is in the store."""
    from service.importing.publishing import next_version, publish
    from service.plan import device
    from service.store.model_store import ModelStore

    store, name = ModelStore(chosen.model_store), arguments["name"]
    version = next_version(store, name) if arguments["version"] is None else arguments["version"]
    store.check_publishable(name, version)
    device.set_threads(chosen.threads)
    with err.status(f"importing {name}/{version}"):
        brought = source(arguments)
        publish(brought, store, name, version, device=chosen.device, announce=show)
    out.print(f"wrote {name}/{version}; foldserve serve serves it", markup=False)
    return 0


def source(arguments: dict[str, Any]) -> Source:
    """What the command line names: an architecture with weights, a callable, or an exported program."""
    kinds = [kind for kind in _SOURCES if arguments[kind] is not None]
    if len(kinds) != 1:
        raise InvalidConfiguration("say one of ARCHITECTURE, --callable and --exported")
    (kind,) = kinds
    foreign = [key for key in _OF_ARCHITECTURES if arguments[key] and kind != "architecture"]
    if foreign:
        raise InvalidConfiguration(f"--{foreign[0]} goes with an ARCHITECTURE, not with --{kind}")
    return _SOURCES[kind](arguments)


def _from_architecture(arguments: dict[str, Any]) -> Source:
    from service.importing.architecture import from_architecture

    if arguments["weights"] is None:
        raise InvalidConfiguration("an ARCHITECTURE needs the file of its weights: --weights FILE")
    brought = from_architecture(arguments["architecture"], arguments["weights"], _wishes(arguments))
    if not arguments["export"]:
        return brought
    from service.importing.program import as_program

    return as_program(brought)


def _from_callable(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_callable

    return from_callable(arguments["callable"], _declared_input(arguments), _labels(arguments))


def _from_exported(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_exported

    return from_exported(arguments["exported"], _declared_input(arguments), _labels(arguments))


_SOURCES = {"architecture": _from_architecture, "callable": _from_callable, "exported": _from_exported}
_OF_ARCHITECTURES = ("weights", "entry", "prefix", "options", "export")


# --- what the user says


def _wishes(arguments: dict[str, Any]) -> Wishes:
    from service.importing.architecture import Wishes

    return Wishes(
        options=dict(arguments["options"]),
        input=_input_keys(arguments),
        labels=_labels(arguments),
        entry=arguments["entry"],
        prefix=arguments["prefix"],
    )


def _input_keys(arguments: dict[str, Any]) -> dict[str, Any]:
    """The keys of the manifest's input that were said; `resize` is None where images are to be squeezed."""
    flags = {"shape": "input", **{key: key for key in ("mean", "std", "resize", "interpolation")}}
    said = {key: arguments[flag] for key, flag in flags.items() if arguments[flag] is not None}
    return {**said, "resize": None} if said.get("resize") == 0 else said


def _declared_input(arguments: dict[str, Any]) -> Input:
    """The input of a network about which no library says anything."""
    from service.importing.architecture import input_from
    from service.importing.preset import Preset

    said = _input_keys(arguments)
    if "shape" not in said:
        raise InvalidConfiguration("nobody says what one row is: give --input C,H,W")
    return input_from(Preset("nobody", {}, crop=None), said)


def _labels(arguments: dict[str, Any]) -> tuple[str, ...] | None:
    path: Path | None = arguments["labels"]
    if path is None:
        return None
    try:
        return tuple(path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n"))
    except OSError as error:
        raise InvalidConfiguration(f"the labels file {path.name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfiguration(f"the labels file {path.name} cannot be read as UTF-8 text") from error


# --- what is printed


def show(report: Report) -> None:
    """Print what was done, what a row is, what became of the norms, and how exact the result is."""
    facts = report.facts
    for remark in report.remarks:
        out.print(f"- {remark}", markup=False, soft_wrap=True)
    table = Table(box=None, show_header=False)
    for key, value in facts.manifest.input.model_dump(exclude_none=True).items():
        table.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    out.print(table)
    fold, parity = facts.fold, facts.fold["parity"]
    kept = [f"{layer['name']}: {layer['reason']}" for layer in fold["layers"] if layer["outcome"] == "kept"]
    for line in kept[:_KEPT_NAMED_AT_MOST]:
        out.print(f"kept {line}", markup=False, soft_wrap=True)
    out.print(
        f"{fold['folded']} of {fold['norms']} norms folded, {fold['kept']} kept. "
        f"Relative error {parity['max_relative_error']:.1e} against float64 "
        f"(unfolded: {parity['unfolded_relative_error']:.1e}, tolerance {parity['tolerance']:.0e}), "
        f"top-1 agreement {parity['top1_agreement']:.0%} of {parity['rows']} rows; "
        f"{facts.precision} on {facts.device}.",
        markup=False,
        soft_wrap=True,
    )
