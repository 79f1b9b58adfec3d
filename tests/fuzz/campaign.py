"""A campaign: one target asked with mutations of its corpus; what it must not do is kept as a file."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .mutation import mutated
from .targets import tried

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 256 << 20
"""By which no target may let memory grow: more than any limit lets through, less than a bomb holds."""
_AT_ONCE = 50


def corpus(name: str) -> list[bytes]:
    """The files of a target: honest ones, and such as once broke it."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def asked(name: str, seed: int, examples: int) -> int:
    """Ask so often; how many were accepted. Raises `AssertionError` that says what to do about a bug."""
    accepted, before = 0, _forgotten_peak()
    contents = _mutations(name, seed)
    for _ in range(0, examples, _AT_ONCE):
        several = [next(contents) for _ in range(_AT_ONCE)]
        accepted += sum(_tried(name, content) for content in several)
        if _peak() - before > MOST_BYTES:
            largest = max(several, key=lambda content: _growth(name, content))
            raise AssertionError(_kept(name, largest, "took too much memory"))
    return accepted


def asked_for(name: str, seconds: float) -> int:
    """Ask for so long, each time something else; how often."""
    end, times, chance = time.monotonic() + seconds, 0, random.SystemRandom()
    while time.monotonic() < end:
        asked(name, chance.randrange(1 << 60), 1000)
        times += 1000
    return times


def _mutations(name: str, seed: int) -> Iterator[bytes]:
    chance, files = random.Random(f"{name} {seed}"), corpus(name)
    while True:
        yield mutated(chance.choice(files), files, chance)


def _tried(name: str, content: bytes) -> bool:
    try:
        return tried(name, content)
    except Exception as error:
        raise AssertionError(_kept(name, content, f"raised {type(error).__name__}: {error}")) from error


def _kept(name: str, content: bytes, what: str) -> str:
    """Leave the content where a test will find it from now on."""
    path = CORPUS / name / f"found-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    return f"{name} {what}; keep {path.name} in the corpus, and mend it"


def _growth(name: str, content: bytes) -> int:
    before = _forgotten_peak()
    _tried(name, content)
    return _peak() - before


def _forgotten_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    """The most memory that this process has taken, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
