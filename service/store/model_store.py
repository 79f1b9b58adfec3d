"""The model store: a folder `<model>/<version>/` for every version of every model."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import InvalidManifest, StoreError, UnknownModel, UnknownVersion
from service.store import content
from service.store import manifest as manifests
from service.store.names import NAME_PATTERN, is_name, is_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.store.manifest import Manifest

_MAX_LABELS_BYTES = 16 * 1024 * 1024
_PUBLISHING = ".publishing-"


Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Of a version's files: name, bytes, time of the last change in nanoseconds, and number on the disk."""


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
            if content.size(self.folder / file) > _MAX_LABELS_BYTES:
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
            raise StoreError(
                f"the model store {self.folder.name!r} is not a folder; --model-store names another"
            )
        names = sorted(_visible_folders(self.folder))
        for name in names:
            if not is_name(name):
                raise StoreError(f"{name!r} is no model name; names match {NAME_PATTERN}")
        return names

    def versions(self, name: str) -> list[int]:
        """Every version of the model, ascending; raises `UnknownModel`."""
        if not is_name(name) or not (self.folder / name).is_dir():
            raise UnknownModel(f"the store has no model {name!r}")
        entries = _visible_folders(self.folder / name)
        for entry in entries:
            if not is_version(entry):
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

    def named(self, text: str) -> StoredModel:
        """A version by `NAME/VERSION`, or the newest by `NAME`; raises as `open` does."""
        name, slash, version = text.partition("/")
        try:
            there = self.versions(name)
        except UnknownModel as error:
            raise UnknownModel(f"{error}; it has {', '.join(self.names()) or 'none'}") from None
        if slash and not is_version(version):
            raise UnknownVersion(f"model {name!r} has no version {version!r}; it has {_listed(there)}")
        return self.open(name, int(version) if slash else None)

    def has_manifest(self, name: str, version: int) -> bool:
        """Whether the version has a manifest, valid or not."""
        try:
            return (self.folder / name / str(version) / manifests.FILE_NAME).is_file()
        except OSError:
            return False

    def fingerprint(self, name: str, version: int) -> Fingerprint:
        """What is another once any file of the version is; raises `StoreError` where it is gone.

        What begins with a dot is no file of it: a baseline that is being written lies there for a moment.
        """
        return _fingerprint(self.folder / name / str(version))

    def check_publishable(self, name: str, version: int, *, replace: bool = False) -> None:
        """Raise `StoreError` where `publish` would, before any work is done."""
        if not is_name(name) or not is_version(str(version)):
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
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise StoreError(f"the model store cannot be written to: {error.strerror}") from error
        with _scratch(self.folder) as scratch:
            fresh, replaced = scratch / name / str(version), scratch / ".replaced"
            fresh.mkdir(parents=True)
            fill(fresh)
            _settle(fresh)
            if _moved_with_its_model(fresh, target):
                return target
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


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A hidden folder that is gone afterwards; those of imports that were killed go too.

    Whoever fills one holds a lock on it, which ends with its process. The lock on the store covers the time
    between the making of a folder and its own lock.
    """
    with ExitStack() as stack:
        with _locked(folder, fcntl.LOCK_EX):
            for abandoned in folder.glob(f"{_PUBLISHING}*"):
                _remove_if_abandoned(abandoned)
            scratch = Path(tempfile.mkdtemp(dir=folder, prefix=_PUBLISHING))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            stack.enter_context(_locked(scratch, fcntl.LOCK_EX))
        yield scratch


def _remove_if_abandoned(scratch: Path) -> None:
    try:
        with _locked(scratch, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError:
        return  # somebody is filling it, or it is not ours to remove


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _moved_with_its_model(fresh: Path, target: Path) -> bool:
    """Move the folder of the model where that is new: at no time is there a model without a version."""
    try:
        fresh.parent.rename(target.parent)
    except OSError:  # it has versions
        return False
    return True


def _settle(folder: Path) -> None:
    """Have the files on the disk before their folder gets its name: a power cut leaves all or none."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _fingerprint(folder: Path) -> Fingerprint:
    try:
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        files = [(path.name, path.stat()) for path in paths]
    except OSError as error:
        what = f"{folder.parent.name}/{folder.name}"
        raise StoreError(f"{what} is gone, or is being changed: {error.strerror}") from error
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in files)


def _visible_folders(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if _is_visible_folder(entry)]
    except OSError as error:  # it may be going at this moment
        raise StoreError(f"{folder.name} cannot be looked into: {error.strerror}") from error


def _is_visible_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith((".", "lost+found"))


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions))
