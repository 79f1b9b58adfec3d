"""Graphs: a network captured, its norms folded, the result proven."""

from service.graph.fold import FoldedNetwork, fold
from service.graph.report import FoldReport, NormOutcome, Outcome

__all__ = ["FoldReport", "FoldedNetwork", "NormOutcome", "Outcome", "fold"]
