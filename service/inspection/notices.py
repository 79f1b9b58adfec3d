"""Notices: the latest drift report of each version, one file each, which one process writes and all read.

A file is replaced in one step, so that nobody ever reads half of a report. They lie in the folder in which
the processes count, in memory, and end with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.inspection.drift_report import DriftReport

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PREFIX, _FRESH = "drift-", ".fresh-drift"


class Notices:
    """Of all versions; names of models and versions are safe in file names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_up(self, report: DriftReport) -> None:
        """Replace what was said of this version."""
        fresh = self._folder / _FRESH
        fresh.write_text(report.model_dump_json(by_alias=True), encoding="utf-8")
        fresh.replace(self._file(report.model, report.version))

    def take_down(self, model: str, version: int) -> None:
        """Say nothing of this version any more."""
        self._file(model, version).unlink(missing_ok=True)

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

    def of(self, versions: Iterable[tuple[str, int]]) -> list[DriftReport]:
        """The reports that there are of these versions."""
        return list(filter(None, (self.read(*version) for version in versions)))

    def _file(self, model: str, version: int) -> Path:
        return self._folder / f"{_PREFIX}{version}-{model}"
