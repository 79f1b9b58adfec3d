"""The greeting: what a service says once everything is ready."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from service.console import err

if TYPE_CHECKING:
    from service.engine.card import ModelCard, ModelFacts
    from service.settings import Settings


def greet(chosen: Settings, cards: list[ModelCard], address: str) -> None:
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
