"""Clients that others wrote for this protocol work as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.e2e.server import Server

from .environments import HERE, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

TRITON = ["describes", "controls", "infers", "infers_images", "compresses", "classifies", "refuses", "counts"]
KSERVE = ["describes", "infers", "refuses"]
CHECKS = [
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
    *("allow_header_conformance", "unsupported_method"),
]
FUZZING_S = 60


@pytest.mark.parametrize("check", [*TRITON, "infers_asynchronously"])
def test_tritonclient(service: Server, rows: Path, check: str) -> None:
    run("tritonclient", "-m", "tests.clients.with_tritonclient", service.address, str(rows), check)


@pytest.mark.parametrize("check", ["loads", "loads_asynchronously"])
def test_tritonclient_with_an_admin_s_key(rows: Path, check: str) -> None:
    settings = {"model_control": "explicit", "keys": "admin:ops:a-key-of-some-length", "workers": 2}
    with Server.start(**settings) as server:
        run("tritonclient", "-m", "tests.clients.with_tritonclient", server.address, str(rows), check)
        assert server.stop() == 0, server.log


@pytest.mark.parametrize("check", KSERVE)
def test_kserve(service: Server, rows: Path, check: str) -> None:
    run("kserve", "-m", "tests.clients.with_kserve", service.address, str(rows), check)


@pytest.mark.parametrize("check", ["describes", "refuses", "infers", "examples"])
def test_the_published_openapi_file(service: Server, rows: Path, check: str) -> None:
    run("schemathesis", "-m", "tests.clients.with_openapi", service.address, str(rows), check)


def test_no_request_that_our_openapi_allows_or_forbids_has_an_undocumented_answer(service: Server) -> None:
    """Schemathesis, over every route: no 5xx, no status, content type or body that is not documented."""
    printed = run(
        "schemathesis",
        *("-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{service.address}/openapi.json", "--checks", ",".join(CHECKS)),
        *("--max-time", str(FUZZING_S), "--max-examples", "25", "--continue-on-failure", "--no-color"),
        *("--generation-database", "none"),
    )
    operations = re.search(r"Operations:\s+(\d+) selected / (\d+) total", printed)
    assert operations, printed
    assert operations[1] == operations[2]
    assert int(operations[1]) >= 27
