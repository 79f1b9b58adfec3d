"""The fold report: what became of every norm, and how exact the folded network is."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from service.graph.parity import Parity

Outcome = Literal["into_producer", "into_consumer", "merged_branch", "absorbed", "kept"]


@dataclass(frozen=True)
class NormOutcome:
    """What became of one norm: exactly one outcome each."""

    name: str
    """The module's name in the original network; `name@1` is the second call of the same module."""
    outcome: Outcome
    partner: str | None
    """The layer or norm that took it in; None where it was kept."""
    reason: str
    """In words, for the person who trained the network."""


@dataclass(frozen=True)
class FoldReport:
    """One outcome for every norm, in the order in which the network computes them."""

    layers: tuple[NormOutcome, ...]
    parity: Parity | None = None
    golden: Parity | None = None
    """The parity of the golden inputs, where the version has some."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took."""

    @property
    def norms(self) -> int:
        """How many norms the network computes."""
        return len(self.layers)

    @property
    def kept(self) -> int:
        """How many of them are left in the folded network."""
        return Counter(layer.outcome for layer in self.layers)["kept"]

    @property
    def folded(self) -> int:
        """How many of them are gone from the folded network."""
        return self.norms - self.kept

    def with_proof(
        self, parity: Parity, seconds: dict[str, float], golden: Parity | None = None
    ) -> FoldReport:
        """The same report with its parity, that of the golden inputs, and the times of more steps."""
        return replace(self, parity=parity, golden=golden, seconds={**self.seconds, **seconds})

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "norms": self.norms,
            "folded": self.folded,
            "kept": self.kept,
            "layers": [asdict(layer) for layer in self.layers],
            "parity": None if self.parity is None else asdict(self.parity),
            "golden": None if self.golden is None else asdict(self.golden),
            "seconds": self.seconds,
        }
