"""What a running service logs: a line for each request, with its id, at a level that can be changed."""

from __future__ import annotations

import json
import re
import signal
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import pytest

from service.telemetry import Level

from .digits import Digits, npy
from .load import Load, rows
from .server import NPY, Server, until
from .tree import Tree, kill
from .watching import is_well
from .wire import head, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

SHOP, OPS = "shop-key-0123456789", "ops-key-0123456789"
KEYS = f"inference:shop:{SHOP},admin:ops:{OPS}"
ADMIN = {"Authorization": f"Bearer {OPS}"}
OURS = re.compile("[0-9a-f]{32}")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAID = "debug messages are logged from now on"


@pytest.fixture(scope="module")
def telling() -> Iterator[Server]:
    """Two workers that log every request as JSON."""
    with Server.start(workers=2, access_log=True, log_format="json", keys=KEYS) as started:
        started.http.headers["Authorization"] = f"Bearer {SHOP}"
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log
        assert not any(key in started.log for key in (SHOP, OPS))


def logged(server: Server) -> list[dict[str, Any]]:
    """The lines so far; the start-up's summary, for people, is left out."""
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def accesses(server: Server) -> dict[str, dict[str, Any]]:
    """The lines of requests by their ids."""
    return {line["request_id"]: line for line in logged(server) if line["logger"] == "foldserve.access"}


def access(server: Server, request_id: str) -> dict[str, Any]:
    return until(lambda: accesses(server).get(request_id)) or {}


# --- ids and lines


def test_a_request_to_predict_becomes_a_line_with_all_that_is_known(telling: Server, digits: Digits) -> None:
    given = {"X-Request-Id": "order-7", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "Content-Type": NPY}
    answer = telling.http.post(
        "/v1/models/digits/predict?top_k=1", content=npy(digits.pixels[:3]), headers=given
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-7")
    line = access(telling, "order-7")
    assert (
        line.items()
        >= {
            "method": "POST",
            "route": "/v1/models/{model}/predict",
            "path": "/v1/models/digits/predict",
            "status": 200,
            "bytes": len(answer.content),
            "trace_id": TRACE,
            "client": "127.0.0.1",
            "key": "shop",
            "model": "digits",
            "version": 1,
            "rows": 3,
            "outcome": "ok",
        }.items()
    )
    timing = answer.json()["timing_ms"]
    assert [line[f"{stage}_ms"] for stage in ("decode", "queue", "compute")] == [
        timing[stage] for stage in ("decode", "queue", "compute")
    ]
    assert line["duration_ms"] >= timing["total"]


def test_an_inference_of_the_protocol_has_its_route_and_its_own_id_is_another_thing(
    telling: Server, digits: Digits
) -> None:
    tensor = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "UINT8"}
    document = {"id": "of-the-protocol", "inputs": [{**tensor, "data": digits.pixels[0].ravel().tolist()}]}
    answer = telling.http.post("/v2/models/digits/versions/1/infer", json=document)
    assert (answer.status_code, answer.json()["id"]) == (200, "of-the-protocol")
    assert OURS.fullmatch(answer.headers["x-request-id"])
    line = access(telling, answer.headers["x-request-id"])
    assert line["route"] == "/v2/models/{model}/versions/{version}/infer"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/nothing", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1/models/nobody", 404)),
        *(("POST", "/v1/models/nobody/predict", 404), ("POST", "/v1/models/digits/predict", 415)),
        *(("GET", "/v2", 200), ("GET", "/v2/nothing", 404), ("POST", "/v2/models/digits/infer", 400)),
        *(("GET", "/v2/models/digits/versions/x", 404), ("POST", "/v2/repository/index", 200)),
        *(("POST", "/v2/repository/models/digits/load", 403), ("PUT", "/v1/log-level", 403)),
        *(("GET", "/", 200), ("GET", "/page/page.css", 200), ("HEAD", "/", 200), ("GET", "/livez", 200)),
        *(("GET", "/metrics", 200), ("GET", "/openapi.json", 200), ("GET", "/v2/health/ready", 200)),
    ],
)
def test_every_answer_bears_an_id_and_has_a_line(
    telling: Server, method: str, path: str, status: int
) -> None:
    answer = telling.http.request(method, f"{path}?secret=1")
    given = answer.headers["x-request-id"]
    assert OURS.fullmatch(given)
    line = access(telling, given)
    assert (line["method"], line["path"], line["status"]) == (method, path, answer.status_code)
    assert answer.status_code in {status, 400}  # of an unknown parameter
    assert "secret" not in json.dumps(line)


def test_without_a_key_a_request_has_an_id_and_a_line_too(telling: Server) -> None:
    answer = telling.http.get("/v1/models", headers={"Authorization": "Bearer nobody-s-key-012345"})
    assert answer.status_code == 401
    line = access(telling, answer.headers["x-request-id"])
    assert (line["status"], line["key"]) == (401, "")


def test_what_is_no_request_has_an_id_a_line_and_is_counted(telling: Server) -> None:
    before = telling.metric("foldserve_refused_connections_total", "invalid-http")
    with telling.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        answer = reply(connection)
    assert access(telling, answer.headers["x-request-id"])["status"] == answer.status == 400
    assert telling.metric("foldserve_refused_connections_total", "invalid-http") == before + 1


def test_nothing_that_a_client_sends_makes_a_line_of_its_own(telling: Server) -> None:
    for number, evil in enumerate((b"a\x1b[31m", b"a\x85b", b'{"level":"error"}\xe2\x80\xa8x', b"a b")):
        with telling.connect() as connection:
            path = f"/v1/models/%0a%1b{number}/predict"
            lines = head(f"Authorization: Bearer {SHOP}", "Content-Length: 0", address=path)
            connection.sendall(lines[:-2] + b"X-Request-Id: " + evil + b"\r\n\r\n")
            assert OURS.fullmatch(given := reply(connection).headers["x-request-id"])
            assert access(telling, given)["path"] == path
    assert all(ch.isprintable() or ch == "\n" for ch in telling.log)


def test_the_lines_of_all_that_was_answered_are_there_when_the_service_has_ended(digits: Digits) -> None:
    with Server.start(workers=2, access_log=True, log_format="json") as server:
        with Load(server.address, [rows(digits, 0, 1)], 16) as load:
            load.more(500)
            server.process.signal(signal.SIGTERM)
            load.end()
            assert server.process.wait() == 0, server.log
        answered = {outcome.headers[b"x-request-id"].decode() for outcome in load.outcomes if outcome.status}
        assert len(answered) >= 500
        assert answered - accesses(server).keys() == set()


def test_without_an_access_log_there_is_no_line(service: Server) -> None:
    given = service.get("/v1/models").headers["x-request-id"]
    assert OURS.fullmatch(given)
    assert given not in getattr(service, "log", "")


# --- the level


@pytest.fixture(scope="module")
def open_to_all() -> Iterator[Server]:
    """Two workers, whose level an admin may change and everybody may see."""
    with Server.start(workers=2, log_format="json", keys=f"admin:ops:{OPS}") as started:
        yield started
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


def level(server: Server) -> str:
    found: str = server.get("/v1/log-level").json()["level"]
    return found


def is_at(server: Server, wanted: str) -> bool:
    """As whichever worker answers knows it: who did not ask hears of it a moment later."""
    return level(server) == wanted


def change(server: Server, to: str) -> None:
    answer = server.http.put("/v1/log-level", json={"level": to}, headers=ADMIN)
    assert (answer.status_code, answer.json()) == (200, {"level": to})


def saying(server: Server) -> list[str]:
    """Who has said that it logs everything now."""
    return [line["process"] for line in logged(server) if line.get("message") == SAID]


def test_a_level_reaches_every_process_and_those_that_are_started_later(open_to_all: Server) -> None:
    tree = Tree(open_to_all.process.pid)
    assert level(open_to_all) == "info"
    assert saying(open_to_all) == []
    change(open_to_all, "debug")
    everybody = ["engine", "supervisor", "worker-0", "worker-1"]
    until(lambda: sorted(saying(open_to_all)) == everybody)
    assert until(lambda: level(open_to_all) == "debug")
    kill(tree.workers(2)[0])
    kill(tree.engine)
    until(lambda: sorted(saying(open_to_all)) == sorted([*everybody, "engine", "worker-0"]))
    until(lambda: is_well(open_to_all))
    change(open_to_all, "warning")
    until(lambda: level(open_to_all) == "warning")
    infos = sum(line["level"] == "info" and "process" in line for line in logged(open_to_all))
    kill(tree.workers(2)[0])
    until(lambda: is_well(open_to_all))
    assert level(open_to_all) == "warning"
    assert sum(line["level"] == "info" and "process" in line for line in logged(open_to_all)) == infos
    change(open_to_all, "info")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"level": "loud"}', b'{"level": "info", "x": 1}', b"info"])
def test_what_is_no_level_is_refused_and_changes_nothing(open_to_all: Server, body: bytes) -> None:
    answer = open_to_all.http.put("/v1/log-level", content=body, headers=ADMIN)
    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-input")
    assert "level" in answer.json()["detail"]
    if b"loud" in body:
        assert "'debug', 'info', 'warning' or 'error'" in answer.json()["detail"]
        assert "loud" not in answer.text
    assert level(open_to_all) == "info"


def test_only_an_admin_changes_it(open_to_all: Server) -> None:
    for answer in (
        open_to_all.http.put("/v1/log-level", json={"level": "debug"}),
        open_to_all.http.post("/v2/logging", json={"log_verbose_level": 1}),
    ):
        assert answer.status_code == 401
    assert level(open_to_all) == "info"


def test_clients_of_the_protocol_see_and_change_the_same(open_to_all: Server) -> None:
    def settings() -> dict[str, Any]:
        found: dict[str, Any] = open_to_all.get("/v2/logging").json()
        return found

    def post(**given: object) -> Any:
        return open_to_all.http.post("/v2/logging", json=given, headers=ADMIN)

    assert settings() == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }
    assert post(log_verbose_level=1).json()["log_verbose_level"] == 1
    until(lambda: level(open_to_all) == "debug")
    assert post(log_verbose_level=0, log_info=False).json()["log_info"] is False
    until(lambda: level(open_to_all) == "warning")
    for wrong in (
        *({"log_file": "/tmp/x"}, {"log_error": False}, {"log_format": "ISO8601"}, {"log_verbose_level": -1}),
        *({"log_info": True, "log_warning": False}, {"log_info": "yes"}, {"unknown": 1}),
    ):
        answer = post(**wrong)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert level(open_to_all) == "warning"
    post(log_info=True)
    until(lambda: level(open_to_all) == "info")


def test_every_level_can_be_had(open_to_all: Server) -> None:
    for each in (*get_args(Level), "info"):
        change(open_to_all, each)
        until(partial(is_at, open_to_all, each))
