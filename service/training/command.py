"""`foldserve train-digits`: the shipped model, trained anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.progress import Progress

from service.console import err, out
from service.store.model_store import ModelStore

if TYPE_CHECKING:
    import argparse

    from service.settings import Settings

SETTINGS = ("model_store",)
SUMMARY = "Train the shipped digits model anew."


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """What to write, and how long to train."""
    sub.add_argument("--name", default="digits", help="model to write (default: %(default)s)")
    sub.add_argument("--model-version", type=int, default=1, help="version to write (default: %(default)s)")
    sub.add_argument("--epochs", type=int, help="passes over the training rows")
    sub.add_argument(
        "--seed", type=int, default=0, help="of weights, order and augmentation (default: %(default)s)"
    )
    sub.add_argument("--replace", action="store_true", help="replace a version that is there already")


def run(chosen: Settings, arguments: dict[str, Any]) -> int:
    """Train, publish and write the reference answers; the answer is the process's exit status."""
    from service.engine.unfolded import write_reference
    from service.training import training

    store, name, version = ModelStore(chosen.model_store), arguments["name"], arguments["model_version"]
    epochs = training.EPOCHS if arguments["epochs"] is None else arguments["epochs"]
    with Progress(console=err) as bar:
        task = bar.add_task("training", total=epochs)
        trained = training.train_digits(
            store,
            name=name,
            version=version,
            epochs=epochs,
            seed=arguments["seed"],
            replace=arguments["replace"],
            progress=lambda now: bar.update(task, completed=now.epoch, description=f"loss {now.loss:.4f}"),
        )
    write_reference(store.open(name, version))
    out.print(
        f"{trained.correct} of {trained.held_out_rows} held-out digits right ({trained.accuracy:.2%}); "
        f"wrote {name}/{version}"
    )
    return 0
