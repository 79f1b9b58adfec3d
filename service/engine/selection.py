"""The selection: which versions of which models are to be served, as the settings and the store say."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, NamedTuple

from service.errors import FoldserveError, InvalidConfiguration, StoreError, UnknownModel, UnknownVersion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from service.settings import Settings
    from service.store.model_store import Fingerprint, ModelStore, StoredModel

State = tuple[tuple[int, "Fingerprint"], ...]
"""The versions of a model that are to be served, each with its files."""

log = logging.getLogger("foldserve.engine")


class Picked(NamedTuple):
    """A version that is to be served."""

    stored: StoredModel
    fingerprint: Fingerprint
    """Of its files, before any of them was read."""


class Selection:
    """Of one store, by one set of settings; looks at the disk anew each time.

    `again` are the versions that an engine before this one served, where that may change while serving.
    """

    def __init__(
        self, store: ModelStore, settings: Settings, again: Iterable[tuple[str, int]] | None = None
    ) -> None:
        self._store = store
        self._settings = settings
        self._again = None if again is None else list(again)

    @property
    def is_forgiving(self) -> bool:
        """Whether a version that cannot be loaded at the start is left out: it was served before."""
        return self._again is not None

    def at_start(self) -> list[Picked]:
        """All that is served from the start on.

        Raises `StoreError`, and `InvalidConfiguration` for a store without models where none may come later.
        """
        if self._again is not None:
            return list(self._opened(self._again))
        names = self.names()
        if not names and self._settings.model_control == "none":
            raise InvalidConfiguration("the model store holds no model")
        return [picked for name in names if not self.is_unfinished(name) for picked in self.of(name)]

    def state(self, name: str) -> State:
        """What is another once a version of the model comes, goes or changes; empty where there is none."""
        try:
            chosen = _chosen(self._versions(name), self._settings.versions)
        except UnknownModel:
            return ()
        return tuple((version, self._store.fingerprint(name, version)) for version in chosen)

    def is_unfinished(self, name: str) -> bool:
        """Whether a model is being written: where the store is polled, no version has its manifest yet."""
        try:
            versions = self._store.versions(name)
        except UnknownModel:
            return False
        return bool(_chosen(versions, self._settings.versions)) and not self._versions(name)

    def _versions(self, name: str) -> list[int]:
        """Those that are there; where the store is polled, whoever writes one writes its manifest last."""
        versions = self._store.versions(name)
        if self._settings.model_control != "poll":
            return versions
        return [version for version in versions if self._store.has_manifest(name, version)]

    def _opened(self, keys: Iterable[tuple[str, int]]) -> Iterator[Picked]:
        for name, version in keys:
            try:
                yield self.picked(name, version)
            except FoldserveError as error:
                log.error("%s/%d is served no more: %s", name, version, error)  # noqa: TRY400 - for people

    def names(self) -> list[str]:
        """The models that are served from the start on."""
        return self._settings.model_names or self._store.names()

    def of(self, name: str) -> list[Picked]:
        """The versions of one model, ascending; raises `UnknownModel`, `UnknownVersion` and `StoreError`."""
        there = self._versions(name)
        chosen = _chosen(there, self._settings.versions)
        if not chosen:
            none = "none of the versions that are to be served" if there else "no version"
            raise UnknownVersion(f"model {name!r} has {none}")
        return [self.picked(name, version) for version in chosen]

    def picked(self, name: str, version: int) -> Picked:
        """One version, whether it is to be served or not; raises `StoreError`, and where it is gone."""
        fingerprint = self._store.fingerprint(name, version)
        return Picked(self._store.open(name, version), fingerprint)

    def require_unchanged(self, picked: Picked) -> None:
        """Raise `StoreError` where the version's files are others now than before it was read, or gone."""
        stored = picked.stored
        if self._store.fingerprint(stored.name, stored.version) != picked.fingerprint:
            raise StoreError(f"{stored} was changed while it was loaded")


def _chosen(there: list[int], policy: str) -> list[int]:
    """Of the versions that are `there`, ascending."""
    if policy == "all":
        return there
    if newest := re.fullmatch(r"latest(?::([0-9]+))?", policy):
        return there[-int(newest[1] or 1) :]
    listed = set(map(int, policy.split(",")))
    return [version for version in there if version in listed]
