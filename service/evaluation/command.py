"""`foldserve evaluate`: accuracy and agreement on the user's own images, and golden inputs from them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.table import Table

from service.arguments import IMAGE_SETTINGS, add_images
from service.console import file_name, out, plain, print_json, print_not_read, progress
from service.errors import FoldserveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.evaluation.evaluation import Evaluation
    from service.settings import Settings
    from service.store.golden import Golden
    from service.store.model_store import StoredModel

SETTINGS = (*IMAGE_SETTINGS, "precision")
SUMMARY = "Measure accuracy and agreement on images of your own, and keep some as golden inputs."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command beside its settings."""
    add_images(parser, "one folder of JPEGs and PNGs for each class, named for a label or its index")
    parser.add_argument(
        "--golden",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="store up to 64 of the images beside the weights; every load checks them (default)",
    )


def run(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> int:
    """Evaluate, print, then store the golden inputs; raises what either raises, the second after printing."""
    evaluation = _evaluated(chosen, stored, arguments)
    kept = evaluation.sample
    refusal = _not_stored(evaluation, kept) if kept else None
    count = len(kept.names) if kept and not refusal else 0
    if arguments["json"]:
        from service.evaluation.report import as_dict

        print_json({**as_dict(evaluation), "golden": count})
    else:
        _print(evaluation, stored.labels())
        if count:
            out.print(f"Stored {count} golden inputs in {stored}; every load checks them.")
    if refusal:
        raise refusal
    return 0


def _evaluated(chosen: Settings, stored: StoredModel, arguments: dict[str, Any]) -> Evaluation:
    from service.evaluation.evaluation import Limits, evaluate
    from service.plan import device

    device.set_threads(chosen.threads)
    manifest = stored.manifest.serving.precision
    with progress(f"evaluating {stored}") as told:
        return evaluate(
            stored,
            arguments["images"],
            device.choose(chosen.device),
            precision=manifest if chosen.precision == "manifest" else chosen.precision,
            threads=chosen.threads,
            limits=Limits(chosen.max_body_bytes, chosen.max_pixels),
            keep_golden=arguments["golden"],
            progress=told,
        )


def _not_stored(evaluation: Evaluation, kept: Golden) -> FoldserveError | None:
    """Store the golden inputs; why not, where the plan that serves does not answer them as it must."""
    from service.engine import golden
    from service.plan.plan import PRECISIONS
    from service.store import golden as goldens

    serving = evaluation.serving
    try:
        golden.prove(kept, serving.answer, PRECISIONS[serving.precision].proven_as)
        goldens.write(evaluation.stored, kept)
    except FoldserveError as error:
        return error
    return None


def _print(evaluation: Evaluation, labels: Sequence[str] | None) -> None:
    _print_networks(evaluation)
    _print_disagreements(evaluation, labels)
    for refused in evaluation.refused:
        out.print(f"Not in {refused.precision}: {plain(refused.reason)}.", soft_wrap=True)
    _print_claims(evaluation)
    for folder in evaluation.empty:
        out.print(f"The folder {plain(repr(folder))} is empty.")
    print_not_read([(each.image, each.reason) for each in evaluation.unreadable])


def _print_networks(evaluation: Evaluation) -> None:
    exact = evaluation.exact.tally
    columns = ("network", "precision", "right", "accuracy", "same top-1", "settled", "logit error")
    table = Table(*columns, box=None)
    table.add_row("unfolded", "float64", f"{exact.correct} of {exact.rows}", f"{exact.accuracy:.2%}")
    for contender in evaluation.others:
        tally = contender.tally
        table.add_row(
            f"{contender.network}{', serves' if contender.serves else ''}",
            contender.precision,
            f"{tally.correct} of {tally.rows}",
            f"{tally.accuracy:.2%}",
            f"{tally.same} of {tally.rows}",
            f"{tally.settled}",
            f"{tally.largest_error:.2e}",
        )
    out.print(table)


def _print_disagreements(evaluation: Evaluation, labels: Sequence[str] | None) -> None:
    """Every one: the float64 margin beside the largest error of the image's logits."""
    table = Table("image", "network", "float64 says", "it says", "margin", "logit error", box=None)
    for contender in evaluation.others:
        for found in contender.tally.disagreements:
            table.add_row(
                file_name(found.image),
                f"{contender.network} {contender.precision}",
                *(plain(labels[n] if labels else n) for n in (found.expected, found.got)),
                f"{found.margin:.2e}",
                f"{found.error:.2e}",
            )
    if table.row_count:
        out.print("\nOther top-1 classes than the unfolded network's in float64:")
        out.print(table)


def _print_claims(evaluation: Evaluation) -> None:
    from service.evaluation.report import why_not_claimed

    out.print()
    for contender in evaluation.others:
        name = f"{contender.network} {contender.precision}"
        reason = why_not_claimed(evaluation.exact.tally, contender.tally)
        if reason is None:
            share = contender.tally.same / contender.tally.rows
            out.print(f"{name}: top-1 agreement {share:.2%}.")
        else:
            out.print(f"{name}: agreement is not claimed: {reason}.", soft_wrap=True)
