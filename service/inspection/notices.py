"""Notices: each version's latest drift report and its last window, which one process writes and all read.

A file is replaced in one step, so that nobody ever reads half of a report. They lie in the folder in which
the processes count, in memory, and end with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.inspection.drift_report import DriftReport
from service.inspection.last_window import read_layer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from service.inspection.last_window import LastWindow, LayerChannels

_PREFIX, _FRESH = "drift-", ".fresh-drift"


class Notices:
    """Of all versions; names of models and versions are safe in file names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The mutable state besides the files: the window that was written last of each version.
        self._windows: dict[tuple[str, int], LastWindow] = {}

    def put_up(self, report: DriftReport, window: LastWindow | None = None) -> None:
        """Replace what was said of this version, and what was judged last of it."""
        key = report.model, report.version
        if window is None:
            self._take_down_window(*key)
        elif window is not self._windows.get(key):
            self._replace(self._window(*key), window.dump())
            self._windows[key] = window
        self._replace(self._file(*key), report.model_dump_json(by_alias=True).encode())

    def take_down(self, model: str, version: int) -> None:
        """Say nothing of this version any more."""
        self._file(model, version).unlink(missing_ok=True)
        self._take_down_window(model, version)

    def clear(self) -> None:
        """Say nothing of any: what a process before this one knew is over."""
        for file in self._folder.glob(f"{_PREFIX}*"):
            file.unlink(missing_ok=True)

    def read(self, model: str, version: int) -> DriftReport | None:
        """The latest report; None where there is none."""
        try:
            content = self._file(model, version).read_bytes()
        except FileNotFoundError:
            return None
        return DriftReport.model_validate_json(content)

    def read_layer(self, model: str, version: int, layer: str) -> LayerChannels | None:
        """One norm in the window that was judged last; None where there is none."""
        return read_layer(self._window(model, version), layer)

    def of(self, versions: Iterable[tuple[str, int]]) -> list[DriftReport]:
        """The reports that there are of these versions."""
        return list(filter(None, (self.read(*version) for version in versions)))

    def _file(self, model: str, version: int) -> Path:
        return self._folder / f"{_PREFIX}{version}-{model}"

    def _window(self, model: str, version: int) -> Path:
        return self._folder / f"{_PREFIX}window-{version}-{model}"

    def _take_down_window(self, model: str, version: int) -> None:
        self._windows.pop((model, version), None)
        self._window(model, version).unlink(missing_ok=True)

    def _replace(self, file: Path, content: bytes) -> None:
        fresh = self._folder / _FRESH
        fresh.write_bytes(content)
        fresh.replace(file)
