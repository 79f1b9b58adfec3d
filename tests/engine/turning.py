"""A real engine over a store that changes, and the loading of versions, which a test can hold up."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from service.engine import card as cards
from service.engine.change import Change, Settled
from service.engine.control import Kind, Message, close_all
from tests.e2e.stores import copied, with_tensors
from tests.engine.house import House
from tests.engine.peer import HANG_S, hears

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from torch import Tensor

    from service.engine.loading import Loaded
    from service.store.model_store import StoredModel


class Turning:
    """The engine, and the supervisor's side of its changes by hand."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.house = House(folder, model_control="explicit", **settings)
        self.loads = Loads(self.house)
        self.house.start()
        self.house.said, told = [], self.house.said
        for message in told:
            close_all(message)
        self.tickets = 0

    def ask(self, model: str = "digits", action: Literal["load", "unload"] = "load") -> int:
        """Ask for a change; the ticket."""
        self.tickets += 1
        change = Change(action=action, model=model)
        self.house.control.send(Message(Kind.ASK, self.tickets, change.packed()))
        return self.tickets

    def told(self) -> str:
        """What comes next, in words."""
        message = hears(self.house.control)
        assert message is not None, "the engine hung up"
        match message.kind:
            case Kind.CARD:
                model, version = cards.read(message.descriptors[0]).key
                close_all(message)
                return f"{message.number} is {model}/{version}"
            case Kind.SETTLED:
                settled = Settled.model_validate_json(message.text)
                return f"{message.number} {settled.refusal}: {settled.detail}".replace(" None: ", " is done")
            case kind:
                return f"{kind.name.lower()} {message.number}"

    def all_told(self) -> list[str]:
        """What comes until the end of a change, and that end."""
        said = [self.told()]
        while not (said[-1].endswith("is done") or said[-1].partition(" ")[2][:1].isupper()):
            said.append(self.told())
        return said

    def made(self, model: str = "digits", action: Literal["load", "unload"] = "load") -> list[str]:
        """What is told of a change, but for its end, which is no refusal."""
        ticket, (*said, end) = self.ask(model, action), self.all_told()
        assert end == f"{ticket} is done"
        return said

    def refused(self, model: str = "digits", action: Literal["load", "unload"] = "load") -> str:
        """Why a change is refused, of which nothing else is told."""
        ticket, (end,) = self.ask(model, action), self.all_told()
        assert end.startswith(f"{ticket} ")
        return end.removeprefix(f"{ticket} ")

    def retire(self, number: int) -> None:
        self.house.control.send(Message(Kind.RETIRE, number))

    def end(self) -> None:
        """Tell it to end, in order; what it gave up has ended then, too."""
        self.loads.open()
        assert self.house.stop() is None
        for thread in loaders():
            thread.join(HANG_S)


class Loads:
    """Stands in the way of the engine's loading: hangs until told to go, once it is `closed`."""

    def __init__(self, house: House) -> None:
        self.begun = threading.Semaphore(0)
        self.failure: Exception | None = None
        self._real = house.engine._load
        self._left: threading.Thread | None = None
        self._go = threading.Event()
        self._go.set()
        house.engine._turnover._preparation._load = self._load

    def close(self) -> None:
        self._go.clear()

    def open(self) -> None:
        self._go.set()

    def wait_until_begun(self) -> None:
        assert self.begun.acquire(timeout=HANG_S)

    def leave(self, thread: threading.Thread) -> None:
        """Let all others go on."""
        self._left = thread

    def _load(self, stored: StoredModel) -> Loaded:
        self.begun.release()
        while not self._go.wait(0.01):
            if self._left not in (None, threading.current_thread()):
                break
        if self.failure:
            raise self.failure
        return self._real(stored)


def loaders() -> list[threading.Thread]:
    """The threads that load."""
    return [each for each in threading.enumerate() if each.name == "loader"]


def negated(folder: Path, version: int = 1, name: str = "digits") -> Path:
    """A copy of the shipped model, whose answers are those of the shipped one with the other sign."""
    target = folder / name / str(version)
    if not target.exists():
        copied(folder, name, version)

    def negate(tensors: dict[str, Tensor]) -> None:
        for last in ("fc2.weight", "fc2.bias"):
            tensors[last] = -tensors[last]

    with_tensors(target, negate)
    return target
