"""Damaged and rewritten programs, thousands of them: each is refused with a reason, or is a program."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch

from service.errors import InvalidProgram
from service.network.program import ProgramNetwork
from service.store import program as programs
from tests.store.programs import CONSTANTS, MODEL, WEIGHTS, entries_of, packed, saved, small

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 62, 1 << 64, 0.5, -0.0, 1e308),
    *("", "x", "relu", "NaN", "Infinity", "torch.ops.aten.relu.default", "open('a', 'w')", "../../x"),
    *([], {}, [[]], [1], {"as_int": 1}, {"as_none": True}, {"as_tensor": {"name": "x"}}, {"name": "relu"}),
]


@pytest.fixture(scope="module")
def honest() -> bytes:
    return saved(small())


def outcome(content: bytes) -> str:
    """Why it is refused, or "" for a program; anything else that is raised fails the test."""
    try:
        ProgramNetwork(programs.vet(content))
    except InvalidProgram as why:
        return str(why)
    return ""


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every container of a document with each of its keys or positions."""
    found, frontier = [], [document]
    while frontier:
        current = frontier.pop()
        keys = list(current) if isinstance(current, dict) else range(len(current))
        found += [(current, key) for key in keys]
        frontier += [current[key] for key in keys if isinstance(current[key], dict | list)]
    return found


def mutate(document: Any, chance: random.Random) -> None:
    """Replace, remove, double or swap something anywhere."""
    container, key = chance.choice(places(document) or [([None], 0)])
    match chance.randrange(4):
        case 0:
            container[key] = chance.choice(VALUES)
        case 1:
            del container[key]
        case 2:
            other, its_key = chance.choice(places(document) or [(container, key)])
            container[key] = json.loads(json.dumps(other[its_key]))
        case 3 if isinstance(container, list):
            container.insert(key, json.loads(json.dumps(container[key])))
        case _:
            container[f"{key}" if isinstance(container, dict) else key] = chance.choice(VALUES)


def test_the_honest_program_is_a_program(honest: bytes) -> None:
    assert outcome(honest) == ""


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_are_refused(honest: bytes, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        content = bytearray(honest)
        for _ in range(chance.choice([1, 1, 1, 2, 8])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        outcome(bytes(content))


def test_every_flipped_byte_of_a_payload_is_seen(honest: bytes) -> None:
    start = honest.index(entries_of(honest)["data/weights/weight_0"])
    for offset in range(64):
        content = bytearray(honest)
        content[start + offset] ^= 1
        assert "checksum" in outcome(bytes(content))


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, CONSTANTS])
@pytest.mark.parametrize("seed", range(4))
def test_changed_documents_are_refused_or_are_programs_that_can_be_asked(
    honest: bytes, name: str, seed: int
) -> None:
    chance, entries = random.Random(seed), entries_of(honest)
    reasons = set()
    for _ in range(60):
        document = json.loads(entries[name])
        for _ in range(chance.choice([1, 1, 2, 5])):
            mutate(document, chance)
        reasons.add(outcome(packed({**entries, name: json.dumps(document).encode()})))
    assert len(reasons) > 4, "the changes change nothing"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_a_program_after_a_change_of_its_calls_computes_or_raises(honest: bytes, seed: int) -> None:
    """Python's and torch's own errors are fine; a crash of the process is not."""
    chance, entries = random.Random(seed), entries_of(honest)
    asked = 0
    for _ in range(150):
        document = json.loads(entries[MODEL])
        mutate(document["graph_module"]["graph"]["nodes"], chance)
        try:
            program = programs.vet(packed({**entries, MODEL: json.dumps(document).encode()}))
            network = ProgramNetwork(program)
        except InvalidProgram:
            continue
        asked += 1
        try:
            with torch.inference_mode():
                network(torch.zeros(2, 3, 8, 8))
        except Exception:  # noqa: BLE001 - a call whose arguments make no sense raises anything
            continue
    assert asked
