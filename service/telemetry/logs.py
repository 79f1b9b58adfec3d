"""Logs: one line for each event on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from functools import lru_cache
from typing import Literal, cast, get_args

from service.telemetry.identity import current

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["text", "json"]

log = logging.getLogger("foldserve")

# C0, DEL, C1, and the separators that some readers take for the end of a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
        }
        request, trace = current.get()
        if request:
            line["request_id"] = request
        if trace:
            line["trace_id"] = trace
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        request, trace = current.get()
        whose = [f" {name}={value}" for name, value in (("request", request), ("trace", trace)) if value]
        message = printable(record.getMessage())
        line = f"{moment(record.created)} {record.levelname:7} {message}{''.join(whose)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logs(level: Level, style: Style, process: str = "") -> None:
    """Send the logs of this process, which is called so in the metrics, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(process) if style == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("uvicorn", "PIL"):  # who say what every connection and every image is made of
        logging.getLogger(library).setLevel("WARNING")
    logging.getLogger("python_multipart").setLevel("CRITICAL")  # a line for each form that is wrong


def level_of(text: bytes) -> Level:
    """The level that a message names; raises `ValueError`."""
    level = text.decode("ascii", "replace")
    if level not in get_args(Level):
        raise ValueError(f"{level[:16]!r} is no log level")
    return cast("Level", level)


def set_level(level: Level) -> None:
    """Log from now on what is of this level and above."""
    logging.getLogger().setLevel(level.upper())
    log.debug("debug messages are logged from now on")


def timestamp(seconds: float) -> str:
    """A time since the epoch for machines, as in 2026-01-01T00:00:00.000+0000."""
    day, clock, zone = _second(int(seconds))
    return f"{day}T{clock}.{int(seconds * 1000) % 1000:03}{zone}"


def moment(seconds: float) -> str:
    """The same for people, as in 2026-01-01 00:00:00.000."""
    day, clock, _ = _second(int(seconds))
    return f"{day} {clock}.{int(seconds * 1000) % 1000:03}"


@lru_cache(maxsize=4)
def _second(seconds: int) -> tuple[str, str, str]:
    local = time.localtime(seconds)
    return time.strftime("%Y-%m-%d", local), time.strftime("%H:%M:%S", local), time.strftime("%z", local)


def printable(text: str) -> str:
    """The same text on one line: what moves a cursor or ends a line is written out, as in `\\n`."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
