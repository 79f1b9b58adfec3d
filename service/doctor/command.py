"""`foldserve doctor`: whether a model's preprocessing is the one that it was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.arguments import IMAGE_SETTINGS, add_images
from service.console import out, plain, print_json, print_not_read, progress

if TYPE_CHECKING:
    import argparse

    from service.diagnosis.diagnosis import Diagnosis
    from service.doctor.examination import Examined
    from service.settings import Settings
    from service.store.model_store import StoredModel

SETTINGS = IMAGE_SETTINGS
SUMMARY = "Say whether images reach a model as they did in training, and which line of model.toml is wrong."

_VERDICTS = {
    "fits": "[bold green]fits[/]",
    "fault": "[bold red]fault[/]",
    "unclear": "[bold yellow]unclear[/]",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command beside its settings."""
    add_images(parser, "a folder of JPEGs and PNGs as they come in live; 16 are enough, 32 are looked at")


def run(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> int:
    """Examine and print; the status is 0 whatever is found. Raises what `examine` raises."""
    examined = _examined(chosen, stored, arguments)
    if arguments["json"]:
        print_json(_as_dict(stored, examined))
        return 0
    found = examined.diagnosis
    _print_variants(found)
    fault = f" ({found.likely.variant.fault})" if found.likely else ""
    out.print(
        f"\n{stored}, {found.images} images: {_VERDICTS[found.verdict]}{fault}. {plain(found.meaning)}",
        soft_wrap=True,
    )
    if found.fix:
        out.print(f"In model.toml of {stored}, in the table \\[input]:")
        for line in found.fix:
            out.print(f"    {line}", markup=False, soft_wrap=True)
    print_not_read([(each.image, each.reason) for each in examined.unreadable])
    return 0


def _examined(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> Examined:
    from service.doctor.examination import examine
    from service.plan import device

    device.set_threads(chosen.threads)
    with progress(f"showing images to {stored}") as told:
        return examine(stored, arguments["images"], device.choose(chosen.device), chosen, told)


def _print_variants(found: Diagnosis) -> None:
    table = Table("variant", "score", "less than as configured", "what it would mean", box=None)
    for each in found.variants:
        gain = f"{each.gain:.3f} ± {each.gain_error:.3f}" if each.variant.fault else ""
        table.add_row(each.variant.name, f"{each.score:.3f}", gain, each.variant.meaning)
    out.print(table)


def _as_dict(stored: StoredModel, examined: Examined) -> dict[str, Any]:
    return {
        "model": stored.name,
        "version": stored.version,
        **examined.diagnosis.as_dict(),
        "unreadable": [{"image": each.image, "reason": each.reason} for each in examined.unreadable],
    }
