"""`foldserve calibrate`: a baseline for drift, from images that are as live ones should be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.arguments import IMAGE_SETTINGS, add_images
from service.console import out, print_json, print_not_read, progress

if TYPE_CHECKING:
    import argparse

    from service.calibration.calibration import Calibrated
    from service.settings import Settings
    from service.store.model_store import StoredModel

SETTINGS = (*IMAGE_SETTINGS, "baselines", "drift_threshold")
SUMMARY = "Record what a model's norms see of accepted images, as the baseline for drift."

_WINDOW = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command beside its settings."""
    add_images(
        parser, "a folder of JPEGs and PNGs as they come in live, in folders or not; some hundreds are good"
    )


def run(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> int:
    """Record and print; raises what `calibrate` raises."""
    done = _calibrated(chosen, stored, arguments["images"])
    content = _as_dict(stored, done, chosen.drift_threshold)
    if arguments["json"]:
        print_json(content)
        return 0
    out.print(
        f"Stored a baseline of {content['rows']} images for {stored} ({done.file.name}): {done.norms} norms, "
        f"{content['classes']} classes told apart. Windows of {_WINDOW} rows drift above "
        f"{content['thresholds']['input']:.4f}. A service uses it from its next start on.",
        soft_wrap=True,
    )
    if done.copies:
        out.print(f"{done.copies} images were copies of others and did not count.")
    print_not_read([(each.image, each.reason) for each in done.unreadable])
    return 0


def _calibrated(chosen: Settings, stored: StoredModel, images: Path) -> Calibrated:
    from service.calibration.calibration import calibrate
    from service.plan import device

    device.set_threads(chosen.threads)
    apart = Path(chosen.baselines) if chosen.baselines else None
    with progress(f"looking at images for {stored}") as told:
        return calibrate(stored, images, device.choose(chosen.device), chosen, apart, told)


def _as_dict(stored: StoredModel, done: Calibrated, floor: float) -> dict[str, Any]:
    baseline = done.baseline
    thresholds = baseline.thresholds(_WINDOW, floor)
    return {
        "model": stored.name,
        "version": stored.version,
        "rows": baseline.rows,
        "copies": done.copies,
        "norms": done.norms,
        "classes": baseline.classes,
        "window": _WINDOW,
        "thresholds": dict(zip(("input", "content"), thresholds, strict=True)),
        "unreadable": [{"image": each.image, "reason": each.reason} for each in done.unreadable],
    }
