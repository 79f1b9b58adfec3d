"""A worker's record becomes a job over its rows in the arena, or is malformed."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from service.batching.job import Lane
from service.engine import arena as arenas
from service.engine.arena import SLOT_BYTES, Arena
from service.engine.doorbell import MalformedRecord, Ring
from service.engine.link import Link
from service.engine.linked_job import linked_job
from tests.engine.cards import facts

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOTS = 64
LARGE = facts("large", 1, shape=[1, 224, 224], output_shape=[1000])
MODELS = {0: facts("digits", 1), 1: facts("digits", 2), 2: LARGE}
RING = Ring(ticket=9, model=0, dtype=0, first_slot=0, rows=1, arrived=1.0, deadline=2.0)


@pytest.fixture
def link() -> Iterator[Link]:
    descriptor = arenas.create(SLOTS)
    ours, theirs = socket.socketpair()
    made = Link(0, ours, Arena(descriptor))
    os.close(descriptor)
    yield made
    made.close()
    theirs.close()


def a_ring(**fields: Any) -> Ring:
    return RING._replace(**fields)


def test_a_job_is_what_the_record_says(link: Link) -> None:
    job = linked_job(link, a_ring(model=1, dtype=1, first_slot=3, rows=17), MODELS)
    assert (job.lane, job.rows) == (Lane(1, "float32"), 17)
    assert (job.arrived, job.deadline, job.ticket) == (1.0, 2.0, 9)
    assert (job.inputs.dtype.name, job.inputs.shape) == ("float32", (17, 1, 8, 8))
    assert (job.outputs.dtype.name, job.outputs.shape) == ("float32", (17, 10))


def test_the_answers_lie_in_the_slot_behind_the_rows(link: Link) -> None:
    job = linked_job(link, a_ring(dtype=1, first_slot=3, rows=17), MODELS)  # 4352 bytes of rows
    start = link.arena.array(0, [1], "uint8").ctypes.data
    assert job.inputs.ctypes.data == start + 3 * SLOT_BYTES
    assert job.outputs.ctypes.data == start + 5 * SLOT_BYTES


def test_moments_lie_where_answers_would(link: Link) -> None:
    models = {0: facts("digits", 1, moments_shape=[2, 1100])}  # 8800 bytes a row
    job = linked_job(link, a_ring(rows=2, wanted="moments"), models)
    assert job.lane == Lane(0, "uint8", "moments")
    assert (job.outputs.dtype.name, job.outputs.shape) == ("float32", (2, 2, 1100))
    linked_job(link, a_ring(first_slot=58, rows=2, wanted="moments"), models)
    with pytest.raises(MalformedRecord):
        linked_job(link, a_ring(first_slot=59, rows=2, wanted="moments"), models)


def test_moments_of_a_model_that_nobody_looks_at_are_malformed(link: Link) -> None:
    with pytest.raises(MalformedRecord, match=r"^moments of model 0, which has none$"):
        linked_job(link, a_ring(wanted="moments"), MODELS)


@pytest.mark.parametrize(("first", "rows"), [(62, 1), (62, 64), (0, 2496)])
def test_a_job_may_end_with_the_last_slot_and_not_behind_it(link: Link, first: int, rows: int) -> None:
    """2496 rows fill 39 slots, and their answers the other 25."""
    job = linked_job(link, a_ring(first_slot=first, rows=rows), MODELS)
    job.outputs[:] = 1.0
    with pytest.raises(MalformedRecord):
        linked_job(link, a_ring(first_slot=first + 1, rows=rows), MODELS)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": 3},
        {"model": 2**32 - 1},
        {"dtype": 2},
        {"dtype": 255},
        {"rows": 2**32 - 1},
        {"rows": 2**32 - 1, "model": 2, "dtype": 1},  # more bytes than 64 bits count
        {"rows": 2**26},  # 2**32 bytes: nothing, where only 32 bits are counted
        {"rows": 0},
        {"first_slot": 63},
        {"first_slot": SLOTS},
        {"first_slot": 2**32 - 1},
        {"model": 2, "rows": 6},
    ],
    ids=str,
)
def test_a_record_that_points_at_what_is_not_there_is_malformed(link: Link, fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedRecord):
        linked_job(link, a_ring(**fields), MODELS)


def test_before_any_model_is_loaded_there_is_no_job(link: Link) -> None:
    with pytest.raises(MalformedRecord):
        linked_job(link, RING, {})


@pytest.mark.parametrize("model", [0, 2])
@pytest.mark.parametrize("dtype", [0, 1])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 40, 200])
@pytest.mark.parametrize("first", [0, 1, 20, 40, 60, 63])
def test_whatever_is_not_malformed_lies_inside_and_does_not_overlap(
    link: Link, model: int, dtype: int, rows: int, first: int
) -> None:
    try:
        job = linked_job(link, a_ring(model=model, dtype=dtype, rows=rows, first_slot=first), MODELS)
    except MalformedRecord:
        return
    start = link.arena.array(0, [1], "uint8").ctypes.data
    ends = [
        (array.ctypes.data - start, array.ctypes.data - start + array.nbytes)
        for array in (job.inputs, job.outputs)
    ]
    assert first * SLOT_BYTES == ends[0][0] < ends[0][1] <= ends[1][0] < ends[1][1] <= SLOTS * SLOT_BYTES
