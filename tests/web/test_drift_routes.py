"""What is said where nothing looks at rows, and how requests about a sample are counted."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.web.composed import composed

if TYPE_CHECKING:
    from tests.web.composed import Composed

DRIFT = "/v1/models/digits/drift"


def asked(application: Composed, method: str, path: str) -> tuple[int, dict[str, Any]]:
    async def main() -> tuple[int, dict[str, Any]]:
        transport = httpx.ASGITransport(application.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.request(method, path)
            return answer.status_code, json.loads(answer.content)

    return asyncio.run(main())


def counted(application: Composed, model: str, outcome: str) -> float | None:
    return application.telemetry.registry.get_sample_value(
        "foldserve_examinations_total", {"model": model, "outcome": outcome}
    )


def test_where_drift_is_off_a_sample_is_refused_with_the_way_to_turn_it_on() -> None:
    with composed(drift="off") as application:
        status, body = asked(application, "POST", DRIFT)
        assert (status, body["type"]) == (409, "not-watched")
        assert body["detail"] == "drift is off; foldserve serve --drift all, or input, looks at rows"
        assert counted(application, "digits", "not-watched") == 1


def test_a_model_without_watched_norms_says_so() -> None:
    with composed() as application:
        status, body = asked(application, "POST", f"{DRIFT[:-5]}versions/1/drift")
        assert (status, body["type"]) == (409, "not-watched")
        assert body["detail"] == "model 'digits' has no norm whose input can be looked at"


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("POST", "/v1/models/nobody/drift", 404, "unknown-model"),
        ("POST", "/v1/models/digits/versions/9/drift", 404, "unknown-version"),
        ("POST", "/v1/models/digits/versions/one/drift", 404, "unknown-version"),
        ("GET", f"{DRIFT}/bn1", 404, "unknown-layer"),
        ("GET", f"{DRIFT}/bn1?channel=1", 400, "invalid-query"),
        ("GET", f"{DRIFT}?layer=bn1", 400, "invalid-query"),
        ("PUT", DRIFT, 405, "method-not-allowed"),
    ],
)
def test_what_is_not_there_is_a_problem(method: str, path: str, status: int, slug: str) -> None:
    with composed() as application:
        found, body = asked(application, method, path)
        assert (found, body["type"]) == (status, slug)


def test_a_request_that_names_no_served_model_is_counted_for_none() -> None:
    with composed() as application:
        asked(application, "POST", "/v1/models/nobody/drift")
        assert counted(application, "", "unknown-model") == 1


def test_the_documentation_shows_body_parameters_and_answer() -> None:
    with composed() as application:
        _, openapi = asked(application, "GET", "/openapi.json")
    for path in ("/v1/models/{model}/drift", "/v1/models/{model}/versions/{version}/drift"):
        said = openapi["paths"][path]["post"]
        assert "image/png" in said["requestBody"]["content"]
        assert [one["name"] for one in said["parameters"]][-2:] == ["dtype", "timeout_ms"]
        answer = said["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert answer.endswith("/SampleDrift")
        assert "application/problem+json" in said["responses"]["409"]["content"]
