"""The command `foldserve import`: its arguments, which of the sources they mean, and what is printed."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from rich.console import Console

    from service.importing.architecture import Wishes
    from service.importing.publishing import Report
    from service.importing.source import Source
    from service.settings import Settings
    from service.store.manifest import Input

SETTINGS = ("model_store", "device", "threads")
SUMMARY = "Bring a network of one's own into the store: checked, folded and proven first."

_KEPT_NAMED_AT_MOST = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside its settings."""
    parser.add_argument(
        "architecture",
        nargs="?",
        help="a name of the catalog: resnet50, torchvision:resnet50, timm:resnet50, ...",
    )
    parser.add_argument(
        "--callable", metavar="MODULE:NAME", help="a function or class that makes the network"
    )
    parser.add_argument("--exported", metavar="FILE", type=Path, help="an exported program (.pt2)")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="safetensors, or a checkpoint of torch.save"
    )
    parser.add_argument("--entry", help="which of several sets of weights in the checkpoint")
    parser.add_argument("--prefix", help="behind which prefix the checkpoint has the network's names")
    parser.add_argument(
        "--options",
        action="append",
        default=[],
        type=_option,
        metavar="KEY=VALUE",
        help="argument of the architecture",
    )
    parser.add_argument("--name", required=True, help="the model's name in the store")
    parser.add_argument("--version", type=int, metavar="N", help="its version (default: the next one)")
    parser.add_argument("--labels", metavar="FILE", type=Path, help="a text file, one label a line")
    parser.add_argument("--input", type=_shape, metavar="C,H,W", help="the shape of one row")
    parser.add_argument("--mean", type=_numbers, metavar="M,...", help="of each channel, for pixels in 0..1")
    parser.add_argument("--std", type=_numbers, metavar="S,...", help="of each channel, for pixels in 0..1")
    parser.add_argument(
        "--resize",
        type=_resize,
        metavar="N",
        help="pixels of the shorter side before the crop; none: squeeze",
    )
    parser.add_argument("--interpolation", choices=("nearest", "bilinear", "bicubic"), help="of the resizing")


def run(out: Console, err: Console, chosen: Settings, arguments: dict[str, Any]) -> int:
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
        publish(brought, store, name, version, device=chosen.device, announce=lambda found: show(out, found))
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
    return from_architecture(arguments["architecture"], arguments["weights"], _wishes(arguments))


def _from_callable(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_callable

    return from_callable(arguments["callable"], _declared_input(arguments), _labels(arguments))


def _from_exported(arguments: dict[str, Any]) -> Source:
    from service.importing.program import from_exported

    return from_exported(arguments["exported"], _declared_input(arguments), _labels(arguments))


_SOURCES = {"architecture": _from_architecture, "callable": _from_callable, "exported": _from_exported}
_OF_ARCHITECTURES = ("weights", "entry", "prefix", "options")


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
        return tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"the labels file {path.name} cannot be read as UTF-8 text") from error


def _option(text: str) -> tuple[str, int | float | str | bool]:
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError("an option is KEY=VALUE, such as num_classes=10")
    if value in {"true", "false"}:
        return key, value == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _shape(text: str) -> list[int]:
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){2}", text):
        raise argparse.ArgumentTypeError("three numbers, such as 3,224,224")
    return [int(size) for size in text.split(",")]


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError("one number for each channel, such as 0.485,0.456,0.406") from error


def _resize(text: str) -> int:
    if text != "none" and not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise argparse.ArgumentTypeError("a number of pixels, or none")
    return 0 if text == "none" else int(text)


# --- what is printed


def show(out: Console, report: Report) -> None:
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
