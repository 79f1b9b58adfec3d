"""A body stays in its pieces, and whoever fills memory with it can rely on being done when it says so."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from service.errors import InvalidTensor, JobCancelled
from service.inputs.rows import Rows
from service.web.bodies import fill, gathered

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    import numpy.typing as npt
    from starlette.types import Message, Receive

PATIENCE_S = 300.0  # reached only by what hangs


@dataclass(frozen=True)
class Slow(Rows):
    """One row that is written when it may be, by whichever thread."""

    started: threading.Event
    may_end: threading.Event
    writers: list[int]
    is_wrong: bool = False

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None] | None:
        self.writers.append(threading.get_ident())
        self.started.set()
        assert self.may_end.wait(PATIENCE_S)
        if self.is_wrong:
            raise InvalidTensor("row 0 holds NaN")
        out[...] = 7
        return None


def slow(*, is_quick: bool = False, is_wrong: bool = False) -> Slow:
    return Slow((1, 1, 2, 2), "uint8", is_quick, threading.Event(), threading.Event(), [], is_wrong)


def pieces_of(chunks: Sequence[bytes]) -> Receive:
    """What an ASGI server says of a body that comes in these pieces."""
    left = list(chunks)

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return receive


def run(work: Coroutine[Any, Any, None]) -> None:
    """On an event loop that has nothing to complain of."""

    async def watched() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        await asyncio.wait_for(work, PATIENCE_S)
        gc.collect()
        assert complaints == []

    asyncio.run(watched())


# Pieces


def test_large_pieces_stay_as_they_are() -> None:
    async def main() -> None:
        sent = [bytes(5000), bytes(70_000), b"end"]
        got = await gathered(pieces_of([*sent, b""]))
        assert [piece is same for piece, same in zip(got, sent, strict=True)] == [True] * 3

    run(main())


@pytest.mark.parametrize("length", [1, 2, 100])
def test_a_body_in_tiny_pieces_takes_little_more_than_its_length(length: int) -> None:
    async def main() -> None:
        sent = [bytes([number % 256] * length) for number in range(30_000)]
        got = await gathered(pieces_of(sent))
        assert b"".join(got) == b"".join(sent)
        assert len(got) <= 30_000 * length / 2048 + 1

    run(main())


def test_nothing_sent_is_nothing_gathered() -> None:
    async def main() -> None:
        assert await gathered(pieces_of([b"", b""])) == []

    run(main())


def test_a_client_that_leaves_in_the_middle_of_its_body_has_sent_none() -> None:
    async def main() -> None:
        pieces, sent = pieces_of([b"first", b"second"]), 0

        async def receive() -> Message:
            nonlocal sent
            sent += 1
            return await pieces() if sent == 1 else {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnect):
            await gathered(receive)

    run(main())


# Filling


@pytest.mark.parametrize("is_quick", [True, False])
def test_what_is_quick_is_written_by_the_loop_itself_and_all_else_by_a_decoder(is_quick: bool) -> None:
    async def main() -> None:
        rows, out = slow(is_quick=is_quick), np.zeros((1, 1, 2, 2), np.uint8)
        rows.may_end.set()
        with ThreadPoolExecutor(1) as decoders:
            await fill(rows, out, decoders)
        assert out.tolist() == [[[[7, 7], [7, 7]]]]
        assert (rows.writers == [threading.get_ident()]) is is_quick

    run(main())


def test_what_is_wrong_with_a_row_reaches_the_caller() -> None:
    async def main() -> None:
        rows, out = slow(is_wrong=True), np.zeros((1, 1, 2, 2), np.uint8)
        rows.may_end.set()
        with ThreadPoolExecutor(1) as decoders, pytest.raises(InvalidTensor, match="row 0 holds NaN"):
            await fill(rows, out, decoders)

    run(main())


def test_what_nobody_wants_any_more_is_not_written_when_its_turn_comes() -> None:
    def check() -> None:
        raise JobCancelled("the client went away")

    async def main() -> None:
        rows, out = slow(), np.zeros((1, 1, 2, 2), np.uint8)
        with ThreadPoolExecutor(1) as decoders, pytest.raises(JobCancelled):
            await fill(rows, out, decoders, check)
        assert rows.writers == []

    run(main())


@pytest.mark.parametrize("is_wrong", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_caller_waits_until_nobody_writes_to_its_memory(is_wrong: bool, times: int) -> None:
    async def main() -> None:
        rows, out = slow(is_wrong=is_wrong), np.zeros((1, 1, 2, 2), np.uint8)
        with ThreadPoolExecutor(1) as decoders:
            filling = asyncio.create_task(fill(rows, out, decoders))
            await asyncio.to_thread(rows.started.wait, PATIENCE_S)
            for _ in range(times):
                filling.cancel()
                await asyncio.sleep(0.02)
            assert not filling.done()
            rows.may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await filling
            assert out.all() != is_wrong

    run(main())


@dataclass(frozen=True)
class Two(Slow):
    """Two rows, one after the other."""

    def _write(self, out: npt.NDArray[Any]) -> Iterator[None]:
        for row in out:
            super()._write(row)
            yield


def test_a_cancelled_caller_waits_for_the_row_that_is_being_written_and_for_no_other() -> None:
    async def main() -> None:
        rows = Two((2, 1, 2, 2), "uint8", False, threading.Event(), threading.Event(), [])
        out = np.zeros((2, 1, 2, 2), np.uint8)
        with ThreadPoolExecutor(1) as decoders:
            filling = asyncio.create_task(fill(rows, out, decoders))
            await asyncio.to_thread(rows.started.wait, PATIENCE_S)
            filling.cancel()
            await asyncio.sleep(0.02)
            rows.may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await filling
        assert [row.any() for row in out] == [True, False]

    run(main())


def test_what_no_decoder_has_begun_is_not_written_after_a_cancel() -> None:
    async def main() -> None:
        first, second = slow(), slow()
        with ThreadPoolExecutor(1) as decoders:
            running = asyncio.create_task(fill(first, np.zeros((1, 1, 2, 2), np.uint8), decoders))
            await asyncio.to_thread(first.started.wait, PATIENCE_S)
            waiting = asyncio.create_task(fill(second, np.zeros((1, 1, 2, 2), np.uint8), decoders))
            await asyncio.sleep(0.02)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            first.may_end.set()
            await running
        assert second.writers == []

    run(main())
