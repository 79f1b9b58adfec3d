"""A child is told its order, lives as long as its parent, and is ended by it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.engine.child import Child, Order
from service.engine.control import Control, Kind, Message
from service.settings import Settings
from tests.engine.peer import open_descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

ROOT = Path(__file__).parents[2]
BEGUN = "tests.engine.begun"
HANG_S = 300.0  # reached only by what hangs


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # `python -m` looks there


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), HANG_S))


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not look():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may be there to collect an orphan's status."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def an_order(counts: Path, **settings: Any) -> Order:
    return Order(settings=Settings(**settings), number=3, counts=counts, cores=[min(os.sched_getaffinity(0))])


async def what_it_says(child: Child) -> dict[str, Any]:
    message = await asyncio.to_thread(child.control.receive)
    assert message is not None
    assert (message.kind, message.number) == (Kind.UP, 3)
    found: dict[str, Any] = json.loads(message.text)
    return found


async def started(order: Order, descriptors: tuple[int, ...] = ()) -> Child:
    child = await Child.start(BEGUN)
    child.tell(order.message(descriptors))
    return child


def test_a_child_gets_its_order_its_cores_and_its_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        order = an_order(tmp_path, port=1234, model_store=tmp_path / "x", body_timeout_s=0.1, models="a,b")
        monkeypatch.setenv("FOLDSERVE_PORT", "99")  # what its parent read counts, not what it would read
        files = [os.memfd_create(name) for name in ("board", "socket")]
        for number, file in enumerate(files):
            os.write(file, b"%d" % number)
        child = await started(order, tuple(files))
        found = await what_it_says(child)
        assert Order.model_validate(found["order"]) == order
        assert found["files"] == ["0", "1"]
        assert found["cores"] == order.cores
        assert found["group"] == child.pid, "a group of its own"
        assert found["open"] == 3 + 1 + 2 + 1, (
            "standard streams, control, two descriptors, the folder looked at"
        )
        for file in files:
            os.close(file)
        child.control.close()
        assert await child.ended() == 7, "it saw its parent hang up"

    run(test)


def test_a_child_is_ended_at_once_and_a_dead_one_needs_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        child = await started(an_order(tmp_path), ())
        await what_it_says(child)
        child.kill()
        assert await child.ended() == -signal.SIGKILL
        child.kill()
        child.tell(Message(Kind.DRAIN))
        child.control.close()

    run(test)


def test_a_child_that_reads_nothing_any_more_is_killed_and_does_not_hold_its_parent_up(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        child = await started(an_order(tmp_path, models="deaf"), ())
        await what_it_says(child)
        for number in range(20_000):
            child.tell(Message(Kind.CARD, number, bytes(1000)))
        assert await child.ended() == -signal.SIGKILL
        child.forget()

    run(test)


def test_a_child_that_is_told_much_before_it_listens_hears_all_of_it_in_order(tmp_path: Path) -> None:
    """As the cards of a thousand models to a worker that replaces another."""

    async def test() -> None:
        child = await Child.start(BEGUN)
        child.tell(an_order(tmp_path).message(()))
        before, file = open_descriptors(), os.memfd_create("card")
        for number in range(1000):
            child.tell(Message(Kind.CARD, number, descriptors=(file,)))
        os.close(file)
        child.tell(Message(Kind.READY, 1000))
        await what_it_says(child)
        heard: Any = await what_it_says(child)
        assert heard == [*([number, 1] for number in range(1000)), [1000, 0]]
        assert open_descriptors() == before
        child.kill()
        await child.ended()
        child.forget()

    run(test)


def test_a_child_that_dies_before_it_hears_its_order_is_one_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        execute = asyncio.create_subprocess_exec

        async def dies(*command: Any, **more: Any) -> asyncio.subprocess.Process:
            running = await execute(*command, **more)
            running.kill()
            await running.wait()
            return running

        monkeypatch.setattr(asyncio, "create_subprocess_exec", dies)
        child = await started(an_order(tmp_path), ())
        assert await child.ended() == -signal.SIGKILL
        child.control.close()

    run(test)


PARENT = f"""
import asyncio, sys, time
from pathlib import Path
from service.engine.child import Child, Order
from service.settings import Settings

async def main():
    order = Order(settings=Settings(models="deaf"), number=3, counts=Path("/nowhere"))
    child = await Child.start({BEGUN!r})
    child.tell(order.message(()))
    assert (await asyncio.to_thread(child.control.receive)) is not None
    print(child.pid, flush=True)
    time.sleep(3600)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_hears_nothing_dies_with_its_parent_all_the_same(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.send_signal(number)
        assert parent.wait(HANG_S) == -number
    until(lambda: is_gone(pid))


def begun(parent: int, start: Message | None) -> subprocess.CompletedProcess[bytes]:
    """Start a child by hand, with this as its parent's number and this as what it hears first."""
    control, theirs = Control.pair()
    with theirs:
        if start:
            control.send(start)
        control.close()
        return subprocess.run(
            [sys.executable, "-m", BEGUN, str(theirs.fileno()), str(parent)],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            timeout=HANG_S,
            check=False,
        )


@pytest.mark.parametrize("parent", [1, 2**22 - 1])
def test_a_child_whose_parent_died_before_it_could_look_ends_without_a_word(parent: int) -> None:
    order = Order(settings=Settings(), counts=Path("/nowhere")).model_dump_json().encode()
    done = begun(parent, Message(Kind.START, 0, order))
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


@pytest.mark.parametrize("start", [None, Message(Kind.DRAIN)])
def test_a_child_that_gets_no_order_ends(start: Message | None) -> None:
    assert begun(os.getpid(), start).returncode == 1


def test_the_socket_is_passed_to_the_child_alone() -> None:
    ours, theirs = Control.pair()
    assert not os.get_inheritable(ours.fileno())
    assert not theirs.get_inheritable()
    assert theirs.family is socket.AF_UNIX
    ours.close()
    theirs.close()
