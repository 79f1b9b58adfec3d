"""`foldserve layers`: what every norm of a model knows, also of a model that is refused."""

from __future__ import annotations

import argparse
import difflib
from typing import TYPE_CHECKING, Any

from service.arguments import add_json, add_model
from service.console import err, out, plain, print_json
from service.errors import InvalidConfiguration, ModelRefused, UnknownLayer
from service.inspection import spreadsheet
from service.inspection.detail import detail
from service.inspection.layer_stats import with_derived
from service.inspection.listing import print_layer, print_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from service.inspection.layer_stats import LayerStats
    from service.settings import Settings
    from service.store.model_store import StoredModel

    Vectors = Mapping[str, Mapping[str, np.ndarray]]

SETTINGS = (
    *("model_store", "device", "precision", "threads"),
    *(
        "flag_constant_channel",
        "flag_gain",
        "flag_never_fires",
        "flag_never_fires_share",
        "flag_lost_weights",
    ),
)
SUMMARY = "Show what every norm of a model knows, and what is odd about it."

_NAMED_AT_MOST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command beside its settings."""
    add_model(parser)
    parser.add_argument("--layer", metavar="NAME", help="show all that is known of one norm")
    parser.add_argument("--channel", type=_channel, metavar="N", help="of that norm, in numbers (default: 0)")
    form = parser.add_mutually_exclusive_group()
    add_json(form)
    form.add_argument(
        "--csv", action="store_true", help="print CSV: one line per norm, or per channel of one"
    )


def run(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> int:
    """Load the model as the engine would, and print its norms.

    Of a model that is refused, they are printed too; raises what loading raises where they cannot be read.
    """
    name, channel = arguments["layer"], arguments["channel"]
    if name is None and channel is not None:
        raise InvalidConfiguration("--channel is one of a norm, which --layer names")
    layers, vectors = _loaded(chosen, stored)
    if name is None:
        _print_all(layers, vectors, arguments)
    else:
        layer = _found(stored, layers, name)
        if channel is not None and channel >= layer.num_features:
            last = layer.num_features - 1
            raise InvalidConfiguration(f"norm {name!r} has the channels 0 to {last}, and no {channel}")
        _print_one(layer, vectors.get(name, {}), channel, arguments)
    return 0


def _loaded(chosen: Settings, stored: StoredModel) -> tuple[Sequence[LayerStats], Vectors]:
    from service.engine import layers, loading
    from service.plan import device

    device.set_threads(chosen.threads)
    precision = None if chosen.precision == "manifest" else chosen.precision
    on = device.choose(chosen.device)
    try:
        with err.status(f"folding {stored}"):
            card = loading.load(
                stored, on, precision=precision, threads=chosen.threads, thresholds=chosen.thresholds
            ).card
    except ModelRefused as why:
        found = layers.of_refused(stored, chosen.thresholds)
        err.print(f"[bold yellow]{stored} would not be served:[/] {plain(why)}", soft_wrap=True)
        return found
    return card.facts.layers, card.vectors


def _print_all(layers: Sequence[LayerStats], vectors: Vectors, arguments: dict[str, Any]) -> None:
    if arguments["json"]:
        print_json([layer.model_dump() for layer in layers])
    elif arguments["csv"]:
        _print_csv(spreadsheet.of_layers(layers))
    else:
        print_layers(out, layers, vectors)


def _print_one(
    layer: LayerStats, stored: Mapping[str, np.ndarray], channel: int | None, arguments: dict[str, Any]
) -> None:
    if arguments["json"]:
        print_json(detail(layer, stored, channel or 0))
    elif arguments["csv"]:
        listed = None if channel is None else [channel]
        _print_csv(spreadsheet.of_channels(with_derived(stored, layer.eps), listed))
    else:
        print_layer(out, layer, stored, channel or 0)


def _print_csv(text: str) -> None:
    out.print(text, end="", soft_wrap=True, markup=False)


def _found(stored: StoredModel, layers: Sequence[LayerStats], name: str) -> LayerStats:
    names = [layer.name for layer in layers]
    if name in names:
        return layers[names.index(name)]
    near = difflib.get_close_matches(name, names, _NAMED_AT_MOST) or names[:_NAMED_AT_MOST]
    like = f"; it has {', '.join(near)}{'' if len(near) == len(names) else ', ...'}" if near else ""
    raise UnknownLayer(f"{stored} has no norm {name!r}{like}")


def _channel(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise argparse.ArgumentTypeError("a channel's number, counted from 0")
    return int(text)
