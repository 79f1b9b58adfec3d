"""The outcome of a request, as the metrics have it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from service.errors import Draining, FoldserveError
from service.web.problems import kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def outcome_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell how the block ended: `ok`, or the slug of the problem that it raises."""
    outcome = "internal-error"
    try:
        yield
        outcome = "ok"
    except FoldserveError as error:
        outcome = kind(error)[1]
        raise
    except asyncio.CancelledError:  # only a drain whose patience has ended cancels a request
        outcome = "draining"
        raise Draining("the service stopped before the answer was there", retry_after_s=5) from None
    finally:
        tell(outcome)
