"""The model store: a folder `<model>/<version>/` for every version of every model."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import InvalidManifest, StoreError, UnknownModel, UnknownVersion
from service.store import manifest as manifests
from service.store.manifest import NAME_PATTERN, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LABELS_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class StoredModel:
    """One version on disk: its manifest is read and valid, its weights are not read yet."""

    name: str
    version: int
    folder: Path
    manifest: Manifest

    @property
    def weights_path(self) -> Path:
        """The file of the weights, which `service.store.weights` reads, or of the program that holds them."""
        return self.folder / self.manifest.network.file

    def labels(self) -> tuple[str, ...] | None:
        """The labels in the order of the logits, or None where the manifest names no file."""
        file = self.manifest.output.labels
        if file is None:
            return None
        try:
            if (self.folder / file).stat().st_size > _MAX_LABELS_BYTES:
                raise InvalidManifest(f"{self}: {file} is larger than {_MAX_LABELS_BYTES} bytes")
            text = (self.folder / file).read_text(encoding="utf-8")
            return tuple(text.removesuffix("\n").split("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidManifest(f"{self}: the labels file {file} cannot be read as UTF-8 text") from error

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class ModelStore:
    """Reads and writes the versions below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Every model's name, sorted; raises `StoreError` where a folder's name is not allowed."""
        if not self.folder.is_dir():
            raise StoreError("the model store is not a folder")
        names = sorted(entry.name for entry in self.folder.iterdir() if _is_visible_folder(entry))
        for name in names:
            if not _is_name(name):
                raise StoreError(f"{name!r} is no model name; names match {NAME_PATTERN}")
        return names

    def versions(self, name: str) -> list[int]:
        """Every version of the model, ascending; raises `UnknownModel`."""
        if not _is_name(name) or not (self.folder / name).is_dir():
            raise UnknownModel(f"the store has no model {name!r}")
        entries = [entry.name for entry in (self.folder / name).iterdir() if _is_visible_folder(entry)]
        for entry in entries:
            if not _is_version(entry):
                raise StoreError(f"{name}/{entry} is no version; versions are positive integers")
        return sorted(map(int, entries))

    def open(self, name: str, version: int | None = None) -> StoredModel:
        """One version, the highest where none is given; raises what is wrong with it."""
        versions = self.versions(name)
        if not versions:
            raise UnknownVersion(f"model {name!r} has no version")
        chosen = versions[-1] if version is None else version
        if chosen not in versions:
            raise UnknownVersion(f"model {name!r} has no version {chosen}; it has {_listed(versions)}")
        folder = self.folder / name / str(chosen)
        return StoredModel(name, chosen, folder, manifests.read(folder / manifests.FILE_NAME))

    def check_publishable(self, name: str, version: int, *, replace: bool = False) -> None:
        """Raise `StoreError` where `publish` would, before any work is done."""
        if not _is_name(name) or not _is_version(str(version)):
            raise StoreError(f"{name}/{version} is no model name and version")
        if (self.folder / name / str(version)).exists() and not replace:
            raise StoreError(f"{name}/{version} is in the store already")

    def publish(
        self, name: str, version: int, fill: Callable[[Path], None], *, replace: bool = False
    ) -> Path:
        """Let `fill` write a version into a fresh folder, then make it visible in one step.

        Raises `StoreError` for a bad name, or where the version is there already and `replace`
        is not set.
        """
        self.check_publishable(name, version, replace=replace)
        target = self.folder / name / str(version)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".publishing-") as scratch:
            fresh, replaced = Path(scratch) / "version", Path(scratch) / "replaced"
            fresh.mkdir()
            fill(fresh)
            target.parent.mkdir(exist_ok=True)
            if replace and target.exists():
                target.rename(replaced)
            try:
                fresh.rename(target)
            except OSError as error:
                if replaced.exists():
                    replaced.rename(target)
                self.check_publishable(name, version)  # it may have appeared meanwhile
                raise StoreError(
                    f"{name}/{version} cannot be moved into the store: {error.strerror}"
                ) from error
        return target


def _is_visible_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith((".", "lost+found"))


def _is_name(text: str) -> bool:
    return re.fullmatch(NAME_PATTERN.removesuffix("$"), text) is not None


def _is_version(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,17}", text) is not None


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
