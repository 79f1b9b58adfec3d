"""The arena is one memory in two processes; its slots are handed out once, and all come back."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine import arena as arenas
from service.engine.arena import SLOT_BYTES, Arena, Slots, row_bytes, slots_for


def an_arena(slots: int) -> Arena:
    descriptor = arenas.create(slots)
    try:
        return Arena(descriptor)
    finally:
        os.close(descriptor)


# The memory


def test_two_mappings_see_each_other_s_bytes() -> None:
    descriptor = arenas.create(3)
    ours, theirs = Arena(descriptor), Arena(descriptor)
    os.close(descriptor)
    ours.array(1, [2, 3], "float32")[:] = [[1, 2, 3], [4, 5, 6]]
    assert theirs.array(1, [6], "float32").tolist() == [1, 2, 3, 4, 5, 6]
    theirs.array(1, [2, 3], "float32")[1, 1] = 9
    assert ours.array(1, [2, 3], "float32")[1].tolist() == [4, 9, 6]
    assert not ours.array(0, [SLOT_BYTES], "uint8").any(), "the slot before is untouched"


@pytest.mark.parametrize("bytes_", [0, SLOT_BYTES, 3 * SLOT_BYTES], ids=["none", "fewer", "more"])
def test_nobody_changes_the_size_of_an_arena(bytes_: int) -> None:
    descriptor = arenas.create(2)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, bytes_)
    assert os.fstat(descriptor).st_size == 2 * SLOT_BYTES
    os.close(descriptor)


def test_nobody_takes_the_seals_away_or_forbids_writing() -> None:
    descriptor = arenas.create(1)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    os.close(descriptor)


@pytest.mark.parametrize("seals", [(), ("GROW",), ("SHRINK",), ("GROW", "SHRINK")], ids=str)
def test_a_file_whose_size_could_change_is_no_arena(seals: tuple[str, ...]) -> None:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SLOT_BYTES)
    for seal in seals:
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, getattr(fcntl, f"F_SEAL_{seal}"))
    with pytest.raises(ValueError, match=r"^the arena is not sealed$"):
        Arena(descriptor)
    os.close(descriptor)


def test_a_file_on_a_disk_or_a_socket_is_no_arena() -> None:
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as file, ours, theirs:
        file.truncate(SLOT_BYTES)
        for descriptor in (file.fileno(), ours.fileno()):
            with pytest.raises((ValueError, OSError)):
                Arena(descriptor)


def test_arrays_begin_where_a_slot_begins_and_are_contiguous() -> None:
    arena = an_arena(4)
    array = arena.array(3, [2, 3, 4], np.float32)
    assert array.ctypes.data % SLOT_BYTES == 0
    assert array.ctypes.data - arena.array(0, [1], "uint8").ctypes.data == 3 * SLOT_BYTES
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_an_array_that_would_reach_beyond_the_end_is_refused() -> None:
    arena = an_arena(2)
    assert arena.array(1, [SLOT_BYTES], "uint8").nbytes == SLOT_BYTES
    for first, count in ((1, SLOT_BYTES + 1), (2, 1), (0, 2 * SLOT_BYTES + 1)):
        with pytest.raises((TypeError, ValueError)):
            arena.array(first, [count], "uint8")


@pytest.mark.parametrize(
    ("first", "count", "is_inside"),
    [
        *((0, 1, True), (0, 8, True), (7, 1, True), (0, 9, False), (7, 2, False), (8, 1, False)),
        *((0, 0, False), (-1, 1, False), (3, -1, False), (2**32 - 1, 1, False), (0, 2**70, False)),
    ],
)
def test_an_arena_knows_which_slots_lie_inside(first: int, count: int, is_inside: bool) -> None:
    assert an_arena(8).holds(first, count) is is_inside


def test_an_arena_takes_memory_only_where_it_was_written() -> None:
    descriptor = arenas.create(1 << 18)  # 1 GiB
    Arena(descriptor).array(5, [SLOT_BYTES], "uint8")[:] = 1
    assert os.fstat(descriptor).st_blocks * 512 == SLOT_BYTES
    os.close(descriptor)


def mapped() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:foldserve-arena")


def test_an_array_keeps_the_mapping_and_the_last_one_takes_it_along() -> None:
    gc.collect()
    before = mapped()
    array = an_arena(2).array(0, [8], "uint8")
    assert mapped() == before + 1
    array[:] = 7
    del array
    assert mapped() == before


@given(rows=st.integers(1, 5000), sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=3))
def test_so_many_slots_hold_the_rows_and_one_fewer_does_not(rows: int, sizes: list[int]) -> None:
    slots = {size: slots_for(rows, size) for size in sizes}
    assert all((slots[size] - 1) * SLOT_BYTES < rows * size <= slots[size] * SLOT_BYTES for size in sizes)
    assert slots_for(rows, *sizes) == sum(slots[size] for size in sizes)


def test_rows_have_their_elements_bytes() -> None:
    assert row_bytes([3, 224, 224], "uint8") == 150_528
    assert row_bytes([3, 224, 224], "float32") == 602_112
    assert row_bytes([], "float32") == 4
    assert slots_for(0, 100) == 0
    assert mmap.PAGESIZE <= SLOT_BYTES


# Who has which slots


def test_the_lowest_run_that_is_long_enough_is_taken() -> None:
    slots = Slots(10)
    assert [slots.take(count) for count in (3, 2, 4)] == [0, 3, 5]
    assert repr(slots) == "<Slots 9 of 10 taken>"
    assert slots.take(2) is None
    assert slots.take(1) == 9
    assert slots.take(1) is None
    slots.give(3, 2)
    slots.give(0, 3)
    assert slots.take(5) == 0, "both runs became one"


def test_more_slots_than_there_are_never_come() -> None:
    assert Slots(4).take(5) is None
    assert Slots(0).take(1) is None


class Handed(RuleBasedStateMachine):
    """Beside the slots stands a list that says for every slot who has it."""

    @initialize(count=st.integers(1, 40))
    def begin(self, count: int) -> None:
        self.slots = Slots(count)
        self.owner: list[int | None] = [None] * count
        self.runs: list[tuple[int, int]] = []
        self.number = 0

    def lowest(self, count: int) -> int | None:
        starts = range(len(self.owner) - count + 1)
        return next((at for at in starts if self.owner[at : at + count] == [None] * count), None)

    @rule(count=st.integers(1, 12))
    def take(self, count: int) -> None:
        expected, first = self.lowest(count), self.slots.take(count)
        assert first == expected
        if first is not None:
            self.number += 1
            self.owner[first : first + count] = [self.number] * count
            self.runs.append((first, count))

    @precondition(lambda self: self.runs)
    @rule(draw=st.randoms(use_true_random=False))
    def give(self, draw: Any) -> None:
        first, count = self.runs.pop(draw.randrange(len(self.runs)))
        self.slots.give(first, count)
        self.owner[first : first + count] = [None] * count

    @invariant()
    def as_many_are_taken_as_somebody_has(self) -> None:
        assert self.slots.taken == sum(owner is not None for owner in self.owner)

    def teardown(self) -> None:
        if not hasattr(self, "slots"):
            return
        for first, count in self.runs:
            self.slots.give(first, count)
        assert self.slots.taken == 0
        assert self.slots.take(self.slots.count) == 0, "all free slots are one run again"


Handed.TestCase.settings = settings(deadline=None, max_examples=200, stateful_step_count=50)
test_no_slot_is_handed_out_twice_or_lost_whatever_happens = Handed.TestCase
