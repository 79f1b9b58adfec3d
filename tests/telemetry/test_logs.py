"""What is logged can be read, by machines too."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from service import telemetry
from service.telemetry.identity import Identity, current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.telemetry import Level


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Puts back what `set_up_logs` changes."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    handlers, level, uvicorn_level = list(root.handlers), root.level, uvicorn.level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    uvicorn.setLevel(uvicorn_level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


@pytest.mark.usefixtures("root_logger")
def test_a_json_log_has_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "json", "worker-0")
    logging.getLogger("foldserve.test").warning('%s of\n%d "rows", ü \x00', "two", 3)
    (line,) = lines(capsys)
    assert list(line) == ["time", "level", "logger", "process", "message"]
    assert line["process"] == "worker-0"
    assert line["message"] == 'two of\n3 "rows", ü \x00'
    assert (line["level"], line["logger"]) == ("warning", "foldserve.test")
    assert len(line["time"]) == len("2026-01-01T00:00:00.000+0000")


@pytest.mark.usefixtures("root_logger")
def test_a_json_log_keeps_an_exception_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "json")
    log = logging.getLogger("foldserve")
    failure = ValueError('a "quoted"\nreason')
    try:
        raise failure
    except ValueError:
        log.exception("it failed")
    log.error("it failed again", exc_info=failure)
    first, second = lines(capsys)
    assert first["message"] == "it failed"
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert first["exception"].endswith('ValueError: a "quoted"\nreason')
    assert second["exception"] == first["exception"]


@pytest.mark.usefixtures("root_logger")
def test_a_text_log_is_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "text")
    logging.getLogger("foldserve").info("ready")
    assert capsys.readouterr().err.endswith("INFO    ready\n")


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("level", "heard"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_is_asked_for_is_logged(
    capsys: pytest.CaptureFixture[str], level: Level, heard: int
) -> None:
    telemetry.set_up_logs(level, "json")
    log = logging.getLogger("foldserve")
    for say in (log.debug, log.info, log.warning, log.error):
        say("said")
    assert len(lines(capsys)) == heard


@pytest.mark.usefixtures("root_logger")
def test_setting_up_again_takes_the_place_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "text")
    telemetry.set_up_logs("info", "json")
    logging.getLogger("foldserve").info("once")
    logging.getLogger("uvicorn.error").info("the server's own chatter")
    assert [line["message"] for line in lines(capsys)] == ["once"]


@pytest.mark.usefixtures("root_logger")
def test_a_level_that_changes_holds_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("warning", "json")
    log = logging.getLogger("foldserve")
    log.info("before")
    telemetry.set_level("info")
    log.info("after")
    telemetry.set_level("error")
    log.warning("afterwards")
    assert [line["message"] for line in lines(capsys)] == ["after"]


@pytest.mark.usefixtures("root_logger")
def test_what_is_logged_of_a_request_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "json")
    token = current.set(Identity("my-id", "ab" * 16))
    logging.getLogger("foldserve").info("in it")
    current.reset(token)
    logging.getLogger("foldserve").info("outside")
    inside, outside = lines(capsys)
    assert (inside["request_id"], inside["trace_id"]) == ("my-id", "ab" * 16)
    assert "request_id" not in outside


@pytest.mark.usefixtures("root_logger")
def test_a_text_log_says_which_request_too_and_keeps_to_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.set_up_logs("info", "text")
    token = current.set(Identity("my-id"))
    logging.getLogger("foldserve").info("one\nline \x1b[31m")
    current.reset(token)
    assert capsys.readouterr().err.endswith("INFO    one\\nline \\x1b[31m request=my-id\n")


@pytest.mark.parametrize("text", [b"", b"INFO", b"verbose", b"\xff", b"info "])
def test_what_is_no_level_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="is no log level"):
        telemetry.level_of(text)
