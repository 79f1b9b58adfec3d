"""wrk: a closed loop of requests from a process of its own on a core of its own.

Each connection sends, waits for the answer, and sends again. wrk corrects its latencies for requests that a
slow answer kept back (coordinated omission), which moves percentiles up and never down.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pinned

if TYPE_CHECKING:
    from payloads import Payload

MISSING = "wrk is not installed; on Debian and Ubuntu: apt-get install wrk"

_SEND = """
local file = assert(io.open("{file}", "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
file:close()
wrk.headers["Content-Type"] = "{media_type}"
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  local times = threads[1]:get("arrivals") or {{}}
  print(string.format(
    '\\n{{"us": %d, "answers": %d, "not_2xx": %d, "broken": %d, "p50_us": %d, "p99_us": %d, "times": [%s]}}',
    summary.duration, summary.requests, errors.status, broken,
    latency:percentile(50), latency:percentile(99), table.concat(times, ",")))
end
"""
_VARY = """
local count, rest = math.random(0, 65535), nil
function request()
  rest = rest or wrk.body:sub(5)
  count = (count + 1) % 65536
  local first = string.char(count % 256, math.floor(count / 256), 0, 63)
  return wrk.format(nil, nil, nil, first .. rest)
end
"""
_NOTE_ARRIVALS = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } moment; int clock_gettime(int, moment *);")
local now = ffi.new("moment")
arrivals = {}
function response(status)
  ffi.C.clock_gettime(1, now)
  if status < 300 then
    arrivals[#arrivals + 1] = string.format("%.6f", tonumber(now.s) + tonumber(now.ns) * 1e-9)
  end
end
"""


@dataclass(frozen=True)
class Window:
    """What a load saw."""

    per_second: float
    p50_ms: float
    p99_ms: float
    answers: int
    """With a 2xx status."""
    failed: int


def is_installed() -> bool:
    """Whether there is a wrk to run."""
    return shutil.which("wrk") is not None


def load(
    url: str, payload: Payload, *, connections: int, seconds: int, core: int, note_arrivals: bool
) -> Window:
    """Load `url` for some seconds.

    A window cuts batches at both ends, which matters where a batch takes long. `note_arrivals` notes when
    each answer came and takes the slope of their number over time, which the ends do not bend; it costs
    microseconds an answer, so it is for networks that take milliseconds.
    """
    script = _SEND.format(file=payload.file, media_type=payload.media_type)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + (_VARY if payload.varies else "") + (_NOTE_ARRIVALS if note_arrivals else ""))
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=30s", "-s", file.name, url]
        done = subprocess.run(pinned.command([core], command), capture_output=True, text=True, check=True)
    return _window(json.loads(done.stdout.strip().splitlines()[-1]), note_arrivals=note_arrivals)


def _window(said: dict[str, object], *, note_arrivals: bool) -> Window:
    number = {name: float(value) for name, value in said.items() if isinstance(value, int)}
    times = said["times"]
    answers = number["answers"] - number["not_2xx"]
    rate = answers / number["us"] * 1e6
    if note_arrivals and isinstance(times, list) and len(times) > 2:
        rate = statistics.linear_regression(times, range(len(times))).slope
    return Window(
        rate,
        number["p50_us"] / 1000,
        number["p99_us"] / 1000,
        int(answers),
        int(number["not_2xx"] + number["broken"]),
    )
