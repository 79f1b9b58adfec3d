"""A test that fails takes no other with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import gc
import socket


def test_that_fails():
    left_open = socket.socket()
    try:
        assert not left_open.fileno()
    except AssertionError as failure:
        known = failure  # it and this frame hold each other
        raise


def test_that_passes():
    gc.collect()


def test_that_forgets_a_socket():
    socket.socket()
"""


def test_what_a_failed_test_leaves_open_is_not_blamed_on_the_next_one(tmp_path: Path) -> None:
    """And what a passing one leaves open is still found."""
    (tmp_path / "test_three.py").write_text(TESTS, encoding="utf-8")
    settings = ["-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q"]
    command = [sys.executable, "-m", "pytest", *settings, str(tmp_path / "test_three.py")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    failed = [line.partition("::")[2].split()[0] for line in said.splitlines() if line.startswith("FAILED")]
    assert failed == ["test_that_fails", "test_that_forgets_a_socket"], said
