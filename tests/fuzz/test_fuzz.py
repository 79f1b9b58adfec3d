"""Every decoder, given files that are almost right, answers or refuses, and does nothing else."""

from __future__ import annotations

import os
import random

import pytest

from .campaign import CORPUS, asked, asked_for, corpus
from .mutation import mutated
from .targets import TARGETS, tried

SECONDS = float(os.environ.get("FOLDSERVE_TEST_FUZZ_SECONDS", "0"))
"""How long each target is asked with what nobody has seen before; 0: with the same examples each time."""
EXAMPLES = {"archive": 300, "torch_file": 600, "manifest": 800, "image": 1500}


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_broke_a_decoder_is_answered_or_refused(name: str) -> None:
    accepted = [tried(name, content) for content in corpus(name)]
    assert any(accepted), "without an honest file nothing behind the first check would be reached"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_almost_right_is_answered_or_refused(name: str) -> None:
    if SECONDS:
        assert asked_for(name, SECONDS)
        return
    examples = EXAMPLES.get(name, 2000)
    accepted = asked(name, 0, examples)
    assert 0 < accepted <= examples
    assert accepted < examples or name == "headers", "what is sent is wrong now and then"


def test_every_folder_of_the_corpus_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_mutations_are_the_same_for_the_same_seed_and_differ_from_what_they_were() -> None:
    files = corpus("json")

    def made(seed: int) -> list[bytes]:
        chance = random.Random(seed)
        return [mutated(files[0], files, chance) for _ in range(200)]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len({*made(1), files[0]}) > 150


def test_a_bug_is_found_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a decoder that trusts a length."""

    def trusting(content: bytes) -> None:
        bytearray(content)[content[8] * 2]

    monkeypatch.setitem(TARGETS, "npy", (trusting, ValueError))
    before = set((CORPUS / "npy").iterdir())
    with pytest.raises(AssertionError, match=r"npy raised IndexError.*keep found-"):
        asked("npy", 0, 5000)
    (kept,) = set((CORPUS / "npy").iterdir()) - before
    try:
        with pytest.raises(IndexError):
            tried("npy", kept.read_bytes())
    finally:
        kept.unlink()


def test_a_bomb_is_found_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(content: bytes) -> None:
        bytearray(b"x" * ((300 << 20) if content[:1] != b"{" else 1))

    monkeypatch.setitem(TARGETS, "json", (greedy, ValueError))
    before = set((CORPUS / "json").iterdir())
    with pytest.raises(AssertionError, match="took too much memory"):
        asked("json", 0, 500)
    for kept in set((CORPUS / "json").iterdir()) - before:
        kept.unlink()
