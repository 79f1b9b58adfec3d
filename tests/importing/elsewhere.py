"""What a machine with nothing but foldserve looks like: no library that a network could come from."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_ONLY_FOLDSERVE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"timm", "torchvision", "mine", "my_networks"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Absent())
"""


def go_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every process that is started from now on find none; `folder` is for what does that."""
    (folder / "sitecustomize.py").write_text(_ONLY_FOLDSERVE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    absent = subprocess.run([sys.executable, "-c", "import timm"], check=False, capture_output=True)
    assert b"not installed here" in absent.stderr
