"""The solitude: what torch keeps in one place for all threads while it exports, left to one thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_ONE = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """For whoever looks at symbolic sizes, as captured graphs have them; nobody exports meanwhile.

    What an export writes down it finds in a stack of modes that all threads share: a comparison of two such
    sizes on another thread is written down too, and what is exported at that moment is not.
    """
    with _ONE:
        yield


@contextmanager
def solitary() -> Iterator[None]:
    """Let no other thread believe that it exports, and none export meanwhile: torch patches its classes.

    torch's flag is one for all threads, and a function of its C++ interpreter, such as a plan that serves
    meanwhile, refuses to run where `torch.compiler.is_exporting` says so.
    """
    with one_at_a_time():
        asked, this = torch.compiler.is_exporting, threading.get_ident()

        def is_exporting() -> bool:
            return threading.get_ident() == this and asked()

        torch.compiler.is_exporting = is_exporting
        try:
            yield
        finally:
            torch.compiler.is_exporting = asked
