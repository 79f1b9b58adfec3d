"""The access log writes every line that it takes, whole, and never makes whoever gives it one wait."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from service.telemetry import AccessLog, Entry, Telemetry
from service.telemetry.identity import Identity
from tests.telemetry.reading import value

if TYPE_CHECKING:
    from collections.abc import Iterator

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def entry(number: int = 0, **noted: Any) -> Entry:
    made = Entry(Identity(f"id-{number}", "ab" * 16), "GET", "/v1/models", "127.0.0.1")
    made.status, made.body_bytes, made.ended, made.duration_s = 200, 12, 1_700_000_000.1234, 0.0015
    for name, what in noted.items():
        setattr(made, name, what)
    return made


def read(end: int) -> bytes:
    """All that is there now."""
    found = b""
    while select.select([end], [], [], 0)[0]:
        found += os.read(end, 1 << 16)
    return found


def lost(telemetry: Telemetry, reason: str) -> float:
    return value(telemetry, "foldserve_access_log_dropped_total", reason=reason)


# What is in a line


def test_a_line_says_who_asked_for_what_and_what_became_of_it() -> None:
    line = json.loads(entry(7, route="/v1/models", key="shop").line("json"))
    assert line.pop("time").startswith("2023-11-1")
    assert line == {
        "level": "info",
        "logger": "foldserve.access",
        "method": "GET",
        "route": "/v1/models",
        "path": "/v1/models",
        "status": 200,
        "bytes": 12,
        "duration_ms": 1.5,
        "request_id": "id-7",
        "trace_id": "ab" * 16,
        "client": "127.0.0.1",
        "key": "shop",
    }


def test_a_line_of_a_request_to_predict_has_its_model_rows_and_stages() -> None:
    noted: dict[str, Any] = {"model": "digits", "version": 3, "rows": 5, "outcome": "ok"}
    line = json.loads(entry(stages=lambda: {"decode_ms": 0.5, "queue_ms": 0.25}, **noted).line("json"))
    assert line.items() >= noted.items()
    assert (line["decode_ms"], line["queue_ms"], "compute_ms" in line) == (0.5, 0.25, False)


def test_a_line_for_people_has_what_is_known_and_no_more() -> None:
    line = entry(3, key="").line("text").decode()
    assert line.endswith(
        " ACCESS  method=GET path=/v1/models status=200 bytes=12 duration_ms=1.5 request_id=id-3 "
        f"trace_id={'ab' * 16} client=127.0.0.1\n"
    )


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("evil", ["\n", "\r", "\x1b[2J", "\x00", "\x7f", "\x9b", "\u2028", "\u2029", '"'])
def test_what_a_client_chose_cannot_end_a_line_or_move_a_cursor(style: Any, evil: str) -> None:
    made = entry()
    made.path = f"/a{evil}b"
    line = made.line(style).decode()
    assert line.endswith("\n")
    assert all(ch.isprintable() for ch in line[:-1])
    if style == "json":
        assert json.loads(line)["path"].startswith("/a")


def test_a_path_of_any_length_makes_a_short_line() -> None:
    made = entry()
    made.path = "/" + "x" * 60_000
    assert len(made.line("json")) < 1000


# How it is written


@pytest.mark.parametrize("style", ["text", "json"])
def test_all_that_was_taken_is_written_by_the_end_in_order(pipe: Pipe, style: Any) -> None:
    telemetry = Telemetry()
    access = AccessLog(style, telemetry, pipe[1])
    for number in range(100):
        access.put(entry(number))
    access.close()
    lines = read(pipe[0]).decode().splitlines()
    assert [f"id-{number}" in line for number, line in enumerate(lines)] == [True] * 100
    assert lost(telemetry, "full") == 0


def test_lines_are_written_while_it_runs_too(pipe: Pipe) -> None:
    access = AccessLog("json", Telemetry(), pipe[1])
    access.put(entry())
    assert select.select([pipe[0]], [], [], 60)[0]
    access.close()


def test_where_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits(pipe: Pipe) -> None:
    telemetry = Telemetry()
    os.set_blocking(pipe[1], False)
    filled = 0
    while select.select([], [pipe[1]], [], 0)[1]:
        filled += os.write(pipe[1], bytes(4096))
    os.set_blocking(pipe[1], True)
    access = AccessLog("json", telemetry, pipe[1], most_waiting=10)
    for number in range(1000):
        access.put(entry(number))  # would hang here if it wrote
    dropped = lost(telemetry, "full")
    assert 1000 - dropped <= 10 + 4096 // 200  # what waits, and what the thread had taken already
    assert dropped > 0
    reading = threading.Thread(target=os.read, args=(pipe[0], filled))
    reading.start()
    reading.join()
    access.close()
    lines = read(pipe[0]).splitlines()
    assert len([line for line in lines if line.startswith(b"{")]) == 1000 - dropped


def test_a_descriptor_that_does_not_wait_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe[1], False)
    access = AccessLog("json", Telemetry(), pipe[1])
    for number in range(2000):  # several times what the pipe holds
        access.put(entry(number))
    found = bytearray()

    def drain() -> None:
        while found.count(b"\n") < 2000:
            found.extend(os.read(pipe[0], 1 << 16))

    reading = threading.Thread(target=drain)
    reading.start()
    reading.join(60)
    access.close()
    assert [json.loads(line)["request_id"] for line in found.splitlines()] == [f"id-{n}" for n in range(2000)]


def test_what_cannot_be_written_is_counted_and_the_log_goes_on() -> None:
    telemetry = Telemetry()
    reading, writing = os.pipe()
    os.close(reading)
    access = AccessLog("json", telemetry, writing)
    for number in range(30):
        access.put(entry(number))
    access.close()
    os.close(writing)
    assert (lost(telemetry, "failed"), lost(telemetry, "full")) == (30, 0)


def test_several_lines_go_in_one_write_which_no_pipe_takes_apart() -> None:
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # keeps writes apart
    access = AccessLog("json", Telemetry(), writing.fileno())
    for number in range(100):
        access.put(entry(number))
    access.close()
    writing.close()
    writes = [*iter(lambda: reading.recv(1 << 20), b"")]
    reading.close()
    assert len(writes) < 50
    assert max(map(len, writes)) <= select.PIPE_BUF
    assert all(each.endswith(b"}\n") for each in writes)
    assert b"".join(writes).count(b"\n") == 100


_WRITER = """
import sys
from service.telemetry import AccessLog, Entry, Telemetry
from service.telemetry.identity import Identity
access = AccessLog("json", Telemetry())
for number in range(500):
    entry = Entry(Identity(f"{sys.argv[1]}-{number}"), "GET", "/" + "x" * (number % 300))
    access.put(entry)
access.close()
"""


def test_the_lines_of_several_processes_do_not_mix(pipe: Pipe) -> None:
    """As several workers share one standard output."""
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(number)], stdout=pipe[1]) for number in range(3)
    ]
    found = bytearray()
    while found.count(b"\n") < 1500:
        assert select.select([pipe[0]], [], [], 60)[0]
        found.extend(os.read(pipe[0], 1 << 16))
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    ids = [json.loads(line)["request_id"] for line in found.splitlines()]
    assert sorted(ids) == sorted(f"{writer}-{number}" for writer in range(3) for number in range(500))
