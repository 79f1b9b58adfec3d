"""A spark line shows where the values of a vector lie, on any terminal."""

from __future__ import annotations

import numpy as np

from service.inspection.sparkline import sparkline


def test_the_fullest_bin_is_the_highest_and_only_an_empty_one_is_blank() -> None:
    values = np.array([0.0] * 800 + [1.0] * 1 + [3.0] * 400)
    assert sparkline(values, 4) == "█▁ ▄"


def test_it_is_as_long_as_it_should_be() -> None:
    assert [len(sparkline(np.arange(100.0), bins)) for bins in (1, 8, 32)] == [1, 8, 32]


def test_without_blocks_it_is_ascii() -> None:
    line = sparkline(np.array([0.0] * 8 + [3.0]), 4, "ascii")
    assert line == "@  ."
    assert sparkline(np.arange(64.0), 16, "iso-8859-1").isascii()


def test_what_is_not_finite_is_not_shown_and_nothing_is_blank() -> None:
    assert sparkline(np.array([np.nan, np.inf, 1.0, 1.0, 2.0]), 2) == "█▄"
    assert sparkline(np.array([np.nan]), 4) == "    "
    assert sparkline(None, 4) == ""
