"""The log level: a worker asks, everybody is told, and who is started later as well."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from service.engine import board
from service.engine.control import Kind, Message
from service.engine.log_level import LogLevel
from service.engine.roster import Roster
from service.errors import QueueFull
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """This process logs as before."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


# A worker's side


def test_a_change_is_done_when_the_supervisor_says_so() -> None:
    told: list[Message] = []

    async def main() -> None:
        log_level = LogLevel("info", told.append)
        changing = asyncio.create_task(log_level.change("debug"))
        await asyncio.sleep(0)
        assert told == [Message(Kind.LEVEL, 1, b"debug")]
        log_level.hear(Message(Kind.LEVEL, 0, b"error"))  # another worker's, which came first
        await asyncio.sleep(0)
        assert (log_level.level, changing.done()) == ("error", False)
        log_level.hear(Message(Kind.LEVEL, 1, b"debug"))
        await asyncio.wait_for(changing, 60)
        assert (log_level.level, logging.getLogger().level) == ("debug", logging.DEBUG)

    asyncio.run(main())


def test_who_gives_up_waiting_disturbs_nobody() -> None:
    async def main() -> None:
        log_level = LogLevel("info", lambda _: None)
        changing = asyncio.create_task(log_level.change("debug"))
        await asyncio.sleep(0)
        changing.cancel()
        await asyncio.wait([changing])
        log_level.hear(Message(Kind.LEVEL, 1, b"debug"))
        assert log_level.level == "debug"

    asyncio.run(main())


def test_changes_that_wait_have_a_limit() -> None:
    async def main() -> None:
        log_level = LogLevel("info", lambda _: None)
        waiting = [asyncio.create_task(log_level.change("debug")) for _ in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await log_level.change("debug")
        for each in waiting:
            each.cancel()

    asyncio.run(main())


def test_what_is_no_level_changes_nothing() -> None:
    log_level = LogLevel("info", lambda _: None)
    with pytest.raises(ValueError, match="no log level"):
        log_level.hear(Message(Kind.LEVEL, 0, b"loud"))
    assert log_level.level == "info"


# The supervisor's side


class Child:
    """A process as far as the roster knows it, at the far end of its control socket."""

    def __init__(self) -> None:
        from service.engine.control import Control

        self.control, theirs = Control.pair()
        self.theirs = Control(theirs)
        self.pid = 0
        self.is_killed = False
        self.told: list[tuple[int, bytes]] = []

    def tell(self, message: Message) -> None:
        if message.kind is Kind.LEVEL:
            self.told.append((message.number, message.text))

    def kill(self) -> None:
        self.is_killed = True

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.control.fileno())
        self.control.close()
        self.theirs.close()


async def until(look: Callable[[], bool]) -> None:
    while not look():  # noqa: ASYNC110 nothing tells of it
        await asyncio.sleep(0.001)


def test_everybody_is_told_the_asker_by_its_number_and_newcomers_from_the_start() -> None:
    async def main() -> None:
        roster = Roster(board.Board(board.create(3)), 8, Telemetry(), lambda: None)
        engine, *workers = house = [Child() for _ in range(4)]
        children: Any = house
        roster.enter_engine(children[0])
        roster.enter_worker(0, children[1])
        roster.enter_worker(1, children[2])
        assert [child.told for child in house] == [[], [], [], []]
        workers[1].theirs.send(Message(Kind.LEVEL, 7, b"debug"))
        await until(lambda: bool(workers[1].told))
        assert (engine.told, workers[0].told, workers[1].told) == (
            *([(0, b"debug")], [(0, b"debug")]),
            [(7, b"debug")],
        )
        roster.enter_worker(2, children[3])
        assert workers[2].told == [(0, b"debug")]
        assert roster.log_level == "debug"
        workers[0].theirs.send(Message(Kind.LEVEL, 1, b"loud"))
        await until(lambda: workers[0].is_killed)  # what says such a thing is not in order
        assert roster.log_level == "debug"
        for child in house:
            child.close()

    asyncio.run(asyncio.wait_for(main(), 60))
