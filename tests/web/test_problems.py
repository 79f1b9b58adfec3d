"""Every error is one problem: a stable type, a true status, a sentence for its reader and nothing else."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from service import errors
from service.web import problems
from service.web.problems import TABLE, kind, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

STABLE = {
    "invalid-input": 400,
    "invalid-query": 400,
    "invalid-image": 400,
    "invalid-tensor": 400,
    "too-large": 413,
    "unsupported-media-type": 415,
    "request-timeout": 408,
    "headers-too-large": 431,
    "invalid-http": 400,
    "load-refused": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown-model": 404,
    "unknown-version": 404,
    "unknown-layer": 404,
    "not-watched": 409,
    "too-few-rows": 409,
    "not-stored": 409,
    "not-ready": 503,
    "draining": 503,
    "queue-full": 429,
    "too-many-connections": 503,
    "deadline-passed": 504,
    "cancelled": 503,
    "engine-failed": 503,
    "load-stalled": 503,
    "internal-error": 500,
}
SECRET = "/srv/secret/model_store/digits"


def subclasses(of: type[errors.FoldserveError]) -> Iterator[type[errors.FoldserveError]]:
    for child in of.__subclasses__():
        yield child
        yield from subclasses(child)


EVERY = sorted(set(subclasses(errors.FoldserveError)), key=lambda error: error.__name__)
LEAVES = [error for error in EVERY if not error.__subclasses__()]


def body(response: Any) -> Any:
    return json.loads(response.body)


# The table


def test_the_slugs_that_clients_rely_on_are_these() -> None:
    assert {slug: status.value for status, slug in TABLE.values()} == STABLE


def test_every_slug_stands_for_one_class() -> None:
    slugs = [slug for _, slug in TABLE.values()]
    assert len(slugs) == len(set(slugs))
    assert all(slug == slug.lower() and slug.replace("-", "").isalpha() for slug in slugs)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_every_error_has_a_status_and_a_slug(error: type[errors.FoldserveError]) -> None:
    status, slug = kind(error("why"))
    assert STABLE[slug] == status


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_has_the_status_of_whose_fault_it_is(error: type[errors.FoldserveError]) -> None:
    status = kind(error("why"))[0]
    if issubclass(error, errors.InvalidInput):
        assert status in {400, 408, 413, 415, 431}
    elif issubclass(error, errors.NotFound):
        assert status == 404
    elif issubclass(error, (errors.NotWatched, errors.NotAccepted)):
        assert status == 409
    elif issubclass(error, errors.Denied):
        assert status in {401, 403}
    elif issubclass(error, errors.Unavailable):
        assert status in {429, 503, 504}
    elif error in (errors.Unauthorized, errors.Forbidden):
        assert status in {401, 403}
    else:
        assert status == 500


def test_every_class_of_the_tree_is_drawn_at_the_top_of_its_file() -> None:
    drawn = errors.__doc__ or ""
    assert [error.__name__ for error in EVERY if error.__name__ not in drawn] == []


def test_a_new_kind_of_error_is_answered_as_its_parent() -> None:
    class InvalidAnimation(errors.InvalidImage):
        """A kind that the table does not know yet."""

    assert kind(InvalidAnimation("x")) == (HTTPStatus.BAD_REQUEST, "invalid-image")


# The answer


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_a_problem_has_four_members_and_its_media_type(error: type[errors.FoldserveError]) -> None:
    response = problem(error("because"))
    content = body(response)
    assert list(content) == ["type", "title", "status", "detail"]
    assert content["status"] == response.status_code == STABLE[content["type"]]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.status_code == 500 or content["detail"] == "because"


@pytest.mark.parametrize(
    "error",
    [
        *(errors.FoldserveError, errors.StoreError, errors.InvalidManifest, errors.InvalidWeights),
        *(errors.ModelRefused, errors.InvalidConfiguration),
    ],
)
def test_what_only_operators_may_know_is_kept_from_callers(error: type[errors.FoldserveError]) -> None:
    response = problem(error(f"{SECRET} is damaged"))
    assert body(response) == {
        "type": "internal-error",
        "title": "foldserve failed; this is a bug",
        "status": 500,
        "detail": "the cause is in the service's log",
    }


def test_who_should_come_back_is_told_when() -> None:
    assert problem(errors.QueueFull("full", retry_after_s=7)).headers["retry-after"] == "7"
    assert problem(errors.NotReady("soon", retry_after_s=0)).headers["retry-after"] == "0"
    assert "retry-after" not in problem(errors.QueueFull("full")).headers
    assert "retry-after" not in problem(errors.InvalidImage("bad")).headers


# In an application


def an_application() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.get("/full")
    async def full() -> None:
        raise errors.QueueFull("9 rows wait already", retry_after_s=3)

    @app.get("/damaged")
    async def damaged() -> None:
        raise errors.InvalidWeights(f"{SECRET}/weights.safetensors")

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError(f"cannot open {SECRET}")

    @app.get("/number")
    async def number(version: int) -> int:
        return version

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, f"in {SECRET}", {"X-Pot": "tea"})

    return app


def ask(path: str, method: str = "GET") -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(an_application(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "method", "status", "slug", "detail"),
    [
        ("/full", "GET", 429, "queue-full", "9 rows wait already"),
        ("/damaged", "GET", 500, "internal-error", "the cause is in the service's log"),
        ("/bug", "GET", 500, "internal-error", "the cause is in the service's log"),
        ("/nowhere", "GET", 404, "not-found", "There is nothing at this address"),
        ("/full", "DELETE", 405, "method-not-allowed", "This address does not take this method"),
        ("/number", "GET", 400, "invalid-query", "version: Field required"),
        ("/teapot", "GET", 418, "i'm-a-teapot", "I'm a Teapot"),
    ],
)
def test_errors_of_every_origin_are_problems(
    path: str, method: str, status: int, slug: str, detail: str
) -> None:
    answer = ask(path, method)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == status
    content = answer.json()
    assert (content["type"], content["status"], content["detail"]) == (slug, status, detail)
    assert list(content) == ["type", "title", "status", "detail"]


@pytest.mark.parametrize(
    "path", ["/damaged", "/bug", "/teapot", "/number?version=/etc", "/%2e%2e/etc/passwd"]
)
def test_no_answer_holds_a_path_of_the_server_or_a_traceback(path: str) -> None:
    text = ask(path).text
    for telling in (SECRET, __file__, "Traceback", "site-packages", 'File "', ".py"):
        assert telling not in text


def test_headers_of_the_framework_s_own_errors_are_kept() -> None:
    assert ask("/full", "DELETE").headers["allow"] == "GET, HEAD"
    assert ask("/teapot").headers["x-pot"] == "tea"
    assert ask("/full").headers["retry-after"] == "3"
