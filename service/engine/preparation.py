"""The preparation: what can be done of a change beside the engine's thread, before anything is changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from service.engine.change import Settled
from service.engine.stalled import Stalled
from service.engine.undertaking import Undertaking
from service.errors import FoldserveError, UnknownModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.engine.acceptance import Acceptance
    from service.engine.loading import Loaded
    from service.engine.repertoire import Entry, Repertoire
    from service.engine.selection import Selection
    from service.store.model_store import StoredModel


class Preparation:
    """Loads versions, and makes baselines of live rows; `load` makes a version ready to be served.

    One version may take `load_timeout_s` seconds (0: for ever); then the change is refused, and its thread
    is left to itself.
    """

    def __init__(
        self,
        load: Callable[[StoredModel], Loaded],
        selection: Selection,
        acceptance: Acceptance,
        repertoire: Repertoire,
        load_timeout_s: float,
    ) -> None:
        self._load = load
        self._selection = selection
        self._acceptance = acceptance
        self._repertoire = repertoire
        self._load_timeout_s = load_timeout_s
        self._stalled = Stalled()

    @property
    def is_stalled(self) -> bool:
        """Whether a thread that was given up still runs."""
        return len(self._stalled) > 0

    def is_late(self, asked: Undertaking) -> bool:
        """Whether it has taken longer than it may."""
        return 0 < self._load_timeout_s < time.monotonic() - asked.since

    def given_up(self, asked: Undertaking) -> Undertaking:
        """The same change refused, of which the thread that prepares `asked` does not know."""
        late = self._stalled.give_up(asked.thread, asked.picked, self._load_timeout_s)
        return Undertaking(asked.ticket, asked.change, settled=Settled.refused(asked.change, late))

    def prepare(self, asked: Undertaking, served: Sequence[Entry]) -> None:
        """Do it, for a model that is `served` in these versions; it raises nothing, but settles `asked`."""
        try:
            if asked.change.action == "load":
                self._load_fresh(asked, served)
            elif asked.change.action == "accept":
                facts = self._repertoire.facts
                those = [(entry, facts[entry.number]) for entry in served]
                asked.accepted = self._acceptance.accepted(asked.change, those, asked.recent)
            else:
                _require_served(asked.change.model, served)
            asked.settled = Settled(change=asked.change)
        except FoldserveError as refused:
            asked.settled = Settled.refused(asked.change, refused)
        except Exception:  # noqa: BLE001 - the log tells the whole of it
            asked.fail()

    def _load_fresh(self, asked: Undertaking, served: Sequence[Entry]) -> None:
        """Load what is served in no version, or in another state of its files."""
        current = {(entry.version, entry.fingerprint): entry.number for entry in served}
        for picked in self._selection.of(asked.change.model):
            number = current.get((picked.stored.version, picked.fingerprint))
            if number is None:
                self._stalled.require_none(picked)
                asked.picked, asked.since = picked, time.monotonic()
                asked.fresh.append((self._load(picked.stored), picked.fingerprint))
                self._selection.require_unchanged(picked)
            else:
                asked.kept.add(number)


def _require_served(model: str, served: Sequence[Entry]) -> None:
    if not served:
        raise UnknownModel(f"no model {model!r} is served")
