"""The doorbell's records: what they look like as bytes, and that nothing else is taken for one."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching.job import Wanted
from service.engine.doorbell import (
    VERSION,
    Cancel,
    MalformedRecord,
    Outcome,
    Replies,
    Reply,
    Ring,
    Rings,
)
from service.errors import DeadlinePassed, EngineFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

U8, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
TIMES = st.floats(allow_nan=False, allow_infinity=False)
WANTED = st.sampled_from(get_args(Wanted))
RINGS = st.builds(Ring, U64, U32, U8, U32, U32.filter(bool), TIMES, TIMES, U64, WANTED)
CANCELS = st.builds(Cancel, U64)
REPLIES = st.builds(Reply, U64, st.sampled_from(Outcome), U32, st.floats(allow_nan=False), TIMES)

# As they travel, little-endian. Whoever changes a byte of this changes VERSION, too.
RING = bytes.fromhex(
    "0300 01 01"  # version 3, a job, float32
    "03000000"  # model 3
    "0807060504030201"  # the ticket
    "10000000"  # slot 16
    "05000000"  # 5 rows
    "000000000000f83f"  # arrived at 1.5 s
    "0000000000000040"  # its deadline is 2.0 s
    "2a00000000000000"  # client 42
)
MOMENTS = RING[:2] + b"\x03" + RING[3:]  # a job that wants moments
CANCEL = bytes.fromhex("0300 02 00 00000000 0700000000000000") + bytes(32)
REPLY = bytes.fromhex(
    "0300 01 00"  # version 3, answered
    "40000000"  # of 64 rows
    "0807060504030201"
    "000000000000d03f"  # 0.25 s in the queue
    "000000000000e03f"  # 0.5 s of computing
)


def test_the_records_are_these_bytes() -> None:
    ticket = 0x0102030405060708
    assert VERSION == 3
    assert Ring(ticket, 3, 1, 16, 5, 1.5, 2.0, 42).packed() == RING
    assert Ring(ticket, 3, 1, 16, 5, 1.5, 2.0, 42, "moments").packed() == MOMENTS
    assert Cancel(7).packed() == CANCEL
    assert Reply(ticket, Outcome.ANSWERED, 64, 0.25, 0.5).packed() == REPLY
    assert [len(record) for record in (RING, CANCEL, REPLY)] == [48, 48, 32]
    assert [outcome.value for outcome in Outcome] == [1, 2, 3, 4]


def in_pieces(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return [content[start:end] for start, end in pairwise(ends)]


@given(st.lists(st.one_of(RINGS, CANCELS), max_size=8), st.lists(st.integers(0, 320), max_size=6))
def test_what_a_worker_sends_arrives_however_it_is_cut(sent: list[Ring | Cancel], cuts: list[int]) -> None:
    inbox = Rings()
    content = b"".join(record.packed() for record in sent)
    assert [record for piece in in_pieces(content, cuts) for record in inbox.records(piece)] == sent


@given(st.lists(REPLIES, max_size=8), st.lists(st.integers(0, 256), max_size=6))
def test_what_the_engine_sends_arrives_however_it_is_cut(sent: list[Reply], cuts: list[int]) -> None:
    inbox = Replies()
    content = b"".join(record.packed() for record in sent)
    assert [record for piece in in_pieces(content, cuts) for record in inbox.records(piece)] == sent


@pytest.mark.parametrize(("inbox", "record"), [(Rings, RING), (Rings, CANCEL), (Replies, REPLY)])
def test_a_record_is_read_when_its_last_byte_is_there_and_not_before(
    inbox: type[Rings | Replies], record: bytes
) -> None:
    for cut in range(1, len(record)):
        cutting = inbox()
        assert list(cutting.records(record[:cut])) == []
        assert len(list(cutting.records(record[cut:] + record))) == 2


def with_field(record: bytes, at: int, content: bytes) -> bytes:
    return record[:at] + content + record[at + len(content) :]


@pytest.mark.parametrize("version", [0, 1, 256, 65535])
def test_a_record_of_another_version_is_malformed(version: int) -> None:
    field = struct.pack("<H", version)
    for inbox, record in ((Rings(), RING), (Rings(), CANCEL), (Replies(), REPLY)):
        with pytest.raises(MalformedRecord, match=rf"^version {version}, expected 3$"):
            list(inbox.records(with_field(record, 0, field)))


@pytest.mark.parametrize("number", [0, 4, 5, 255])
def test_a_record_of_an_unknown_kind_is_malformed(number: int) -> None:
    with pytest.raises(MalformedRecord, match=rf"^a record of kind {number}$"):
        list(Rings().records(with_field(RING, 2, bytes([number]))))


@pytest.mark.parametrize("number", [0, 5, 255])
def test_a_reply_of_an_unknown_outcome_is_malformed(number: int) -> None:
    with pytest.raises(MalformedRecord, match=rf"^an outcome of {number}$"):
        list(Replies().records(with_field(REPLY, 2, bytes([number]))))


def test_a_job_of_no_rows_is_malformed() -> None:
    with pytest.raises(MalformedRecord, match=r"^a job of no rows$"):
        list(Rings().records(with_field(RING, 20, bytes(4))))


@pytest.mark.parametrize("at", [24, 32], ids=["arrived", "deadline"])
@pytest.mark.parametrize("time", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_is_no_number_is_malformed(at: int, time: float) -> None:
    """It would have no place in the order of arrival, and take that of the others away."""
    with pytest.raises(MalformedRecord, match=r"^a time of (nan|inf|-inf)$"):
        list(Rings().records(with_field(RING, at, struct.pack("<d", time))))


def test_records_before_a_malformed_one_are_read() -> None:
    found = Rings().records(CANCEL + with_field(RING, 2, b"\xff"))
    assert next(found) == Cancel(7)
    with pytest.raises(MalformedRecord):
        next(found)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_are_records_or_malformed(pieces: list[bytes]) -> None:
    for inbox in (Rings(), Replies()):
        try:
            found = [record for piece in pieces for record in inbox.records(piece)]
        except MalformedRecord:
            continue
        assert len(found) == sum(map(len, pieces)) // (48 if isinstance(inbox, Rings) else 32)


@given(st.data(), st.sampled_from([(Rings, RING), (Rings, CANCEL), (Replies, REPLY)]))
def test_a_damaged_record_is_another_record_or_malformed(
    data: st.DataObject, good: tuple[type[Rings | Replies], bytes]
) -> None:
    """Beyond the version, so that the fields behind it are reached."""
    inbox, record = good
    damage = data.draw(st.binary(min_size=1, max_size=len(record) - 2))
    at = data.draw(st.integers(2, len(record) - len(damage)))
    try:
        (found,) = inbox().records(with_field(record, at, damage))
    except MalformedRecord:
        return
    assert isinstance(found, (Ring, Cancel, Reply))


@pytest.mark.parametrize(
    ("outcome", "error"),
    [(Outcome.FAILED, EngineFailed), (Outcome.LATE, DeadlinePassed)],
)
def test_an_outcome_without_an_answer_is_an_error(outcome: Outcome, error: type[Exception]) -> None:
    assert type(outcome.error()) is error
