"""Virtual environments of other projects' clients: their pins clash with ours and with each other's."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Kept between runs; `make clean` removes it.
KEPT = Path(os.environ.get("FOLDSERVE_TEST_CLIENTS") or ROOT / ".clients")


def python_of(name: str, described_in: Path = HERE) -> Path:
    """The Python of the environment that `NAME.txt` in that folder describes, made if it is not there yet."""
    wanted = described_in / f"{name}.txt"
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = KEPT / f"{name}-{digest}"
    KEPT.mkdir(exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests may want it at once
        if not (folder / "complete").exists():
            _make(folder, wanted)
    return folder / "bin" / "python"


def run(name: str, *arguments: str, described_in: Path = HERE) -> str:
    """What a program prints in the environment of that name; fails where it fails."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "FOLDSERVE_"))}
    done = subprocess.run(
        [str(python_of(name, described_in)), *arguments],
        cwd=ROOT,
        env=kept | {"NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def _make(folder: Path, wanted: Path) -> None:
    """Made by the pip of the tests; to compile all that clients bring would take longer than they run."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    install = ["install", "-qq", "--disable-pip-version-check", "--no-compile", "--requirement", str(wanted)]
    done = subprocess.run([*pip, *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "complete").touch()
