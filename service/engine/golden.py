"""Golden inputs at load: what a plan answers to the user's own images, against the stored float64 answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from service.errors import ModelRefused
from service.graph.parity import Parity, judged, row_errors
from service.store import golden as goldens

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from service.engine.stopwatch import Stopwatch
    from service.store.golden import Golden
    from service.store.model_store import StoredModel


def check(
    stored: StoredModel, run: Callable[[Tensor], Tensor], dtype: torch.dtype, step: Stopwatch
) -> Parity | None:
    """The parity of `run` on the golden inputs of a version; None where it has none.

    Raises `StoreError` for a file that cannot be used, and what `prove` raises.
    """
    golden = goldens.read(stored)
    if golden is None:
        return None
    with step("golden"):
        return prove(golden, run, dtype)


@torch.inference_mode()
def prove(golden: Golden, run: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Parity:
    """Compare `run`, which takes pixels, with the stored answers, to the tolerance of parity in `dtype`.

    Raises `ModelRefused`, which names the input that is answered worst, where it does not hold.
    """
    expected, answers = torch.from_numpy(golden.answers), run(torch.from_numpy(golden.pixels)).cpu()
    own_error = golden.unfolded_errors.get(str(dtype).removeprefix("torch."), 0.0)
    parity = judged(expected, answers, own_error, dtype)
    if not parity.holds:
        errors = row_errors(expected, answers)
        worst = int(errors.argmax())
        raise ModelRefused(
            f"golden input {worst} ({golden.names[worst]}) is answered with a relative error of "
            f"{float(errors[worst]):.2e} against its stored float64 answer, which is over "
            f"{parity.tolerance:.2e}"
        )
    return parity
