"""The fold over many architectures: how many norms each has, how many are left, and the error.

table.toml says what is expected. The networks have random weights and random statistics, and no
architecture's weights are ever downloaded.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .sweep import swept

# A network whose own float32 error is above this amplifies every rounding, and which one is ahead is chance.
CHAOTIC = 1e-4


@dataclass(frozen=True)
class Expected:
    """One line of the table."""

    row: list[int]
    norms: int
    kept: int
    probes: int = 2
    why: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def table() -> dict[str, Expected]:
    """What is expected of each architecture, by its name in the catalog."""
    text = (Path(__file__).parent / "table.toml").read_text(encoding="utf-8")
    return {
        name if library == "built-in" else f"{library}:{name}": Expected(**values)
        for library, lines in tomllib.loads(text).items()
        for name, values in lines.items()
    }


TABLE = table()
KEPT_IN_ALL = 101
MUST_LOSE_EVERY_NORM = [
    "densenet121",
    "densenet201",
    "resnet50",
    "timm:convmixer_768_32",
    "timm:levit_128s",
    "timm:mixnet_s",
    "timm:mobileone_s0",
    "timm:nasnetalarge",
    "timm:repvgg_a0",
    "timm:resnetv2_50",
]


@pytest.mark.parametrize("architecture", TABLE)
def test_the_fold_keeps_what_the_table_says_and_is_as_exact_as_the_network(architecture: str) -> None:
    expected = TABLE[architecture]
    found = swept(architecture, expected.row, expected.options, expected.probes)
    kept = [f"{layer.name}: {layer.reason}" for layer in found.report.layers if layer.outcome == "kept"]
    assert (found.report.norms, len(kept)) == (expected.norms, expected.kept), "\n".join(kept)
    # In float64 nothing is left but the bounds of clamps, which are rounded to float32 on purpose.
    assert found.float64_error <= 1e-6
    own_error = found.parity.unfolded_relative_error
    assert found.parity.max_relative_error <= 2 * own_error or own_error > CHAOTIC
    assert found.parity.holds or own_error > CHAOTIC


@pytest.mark.parametrize("architecture", MUST_LOSE_EVERY_NORM)
def test_the_table_demands_that_no_norm_is_left(architecture: str) -> None:
    assert TABLE[architecture].kept == 0


def test_the_table_holds_at_least_sixty_architectures() -> None:
    assert len(TABLE) >= 60
    assert all(expected.norms for expected in TABLE.values())


def test_no_more_norms_are_kept_than_ever() -> None:
    assert sum(expected.kept for expected in TABLE.values()) <= KEPT_IN_ALL


def test_the_table_says_why_norms_are_kept_where_any_are() -> None:
    assert [name for name, expected in TABLE.items() if bool(expected.kept) != bool(expected.why)] == []
