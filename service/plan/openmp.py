"""OpenMP: how long torch's threads on a CPU wait for each other before they sleep. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SPINS = "5000"
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def calm(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep soon when they wait; call it before torch is imported, which reads this.

    As torch comes, they spin for milliseconds. Where another process takes one of the cores, the thread that
    everybody waits for is then scheduled against spinning ones (docs/benchmarks.md, "Cores that are shared").
    So many spins are about the gap between two calls of a plan. A policy that is set already is left alone.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = _SPINS
        environment["KMP_BLOCKTIME"] = "1"
