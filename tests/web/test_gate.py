"""The gate: what every address of the application asks for, and that there is no way around it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import pytest
from starlette.routing import Mount, Route

from service.web.access import Access
from service.web.gate import Gate
from tests.web.composed import Composed, composed
from tests.web.serving import received, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fastapi import FastAPI
    from starlette.routing import BaseRoute
    from starlette.types import Message

SHOP, OPS = "shop-key-0123456789", "ops-key-0123456789"
BOTH = f"inference:shop:{SHOP},admin:ops:{OPS}"
LOAD = "/v2/repository/models/digits/load"
LEVEL = "/v1/log-level"


class Asked(NamedTuple):
    """A request without a body."""

    method: str
    path: str
    """As it stands on the wire."""


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes


LEVELS = [Asked("PUT", LEVEL), Asked("POST", "/v2/logging")]
BASELINES = [Asked("POST", f"/v1/models/digits/{version}baseline") for version in ("", "versions/1/")]


# Every address


def addresses() -> list[Asked]:
    """A request for each method of each route of the application, and one that no route is for."""
    with composed() as application:
        found = [Asked("GET", "/nothing/here")]
        for route in flat(application_of(application).routes):
            if isinstance(route, Mount):
                found.append(Asked("GET", f"{route.path}/index.html"))
                continue
            assert isinstance(route, Route), f"a test must know of what kind {route} is"
            path = re.sub(r"\{[^}]*\}", lambda part: example(part[0]), route.path)
            found += [Asked(method, path) for method in sorted(route.methods or ())]
        return found


def flat(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        router = getattr(route, "original_router", None)  # as the framework keeps those that were included
        yield from flat(router.routes) if router else [route]


def example(parameter: str) -> str:
    return {"{version}": "1", "{model}": "digits"}.get(parameter, "x")


def application_of(application: Composed) -> FastAPI:
    """What stands behind the gate, the limit and the shortcut."""
    access: Any = application.app
    assert isinstance(access, Access), "it gives requests their names, and answers none itself"
    gate = access._app
    assert isinstance(gate, Gate), "every request passes the gate before anything else"
    found: Any = gate
    while not hasattr(found, "routes"):
        found = found._app
    app: FastAPI = found
    return app


ALL = addresses()
OPEN = {"/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/", "/docs", "/openapi.json"}
OPEN |= {"/page/index.html"}


def changes_something(asked: Asked) -> bool:
    """Whatever is neither read nor inferred, so that no address that comes later is forgotten."""
    is_inference = asked.path.endswith(("/predict", "/infer", "/drift", "/doctor"))
    is_inference |= asked.path == "/v2/repository/index"
    return asked.method not in {"GET", "HEAD"} and not is_inference


async def answer(application: Composed, asked: Asked, *headers: tuple[bytes, bytes]) -> Answer:
    """What is answered where the headers are these, with the path as our server decodes it."""
    path, _, query = asked.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": asked.method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": list(headers),
        "client": None,
        "server": None,
    }
    said: list[Message] = []
    bodies: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not bodies:
            await asyncio.Event().wait()  # the client stays
        return bodies.pop()

    async def send(message: Message) -> None:
        said.append(message)

    await application.app(scope, receive, send)
    given = {name.decode().lower(): value.decode() for name, value in said[0]["headers"]}
    return Answer(said[0]["status"], given, b"".join(each.get("body", b"") for each in said[1:]))


def bearing(key: str) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {key}".encode()


def refusals(
    asked: Iterable[Asked], headers: Sequence[tuple[bytes, bytes]] = (), **settings: Any
) -> dict[Asked, int]:
    """Which of these the gate refuses, and by which status; what it lets pass is answered by another."""

    async def main() -> dict[Asked, int]:
        with composed(**{"model_control": "explicit", **settings}) as application:
            answers = {each: (await answer(application, each, *headers)).status for each in asked}
            return {each: status for each, status in answers.items() if status in (401, 403)}

    return asyncio.run(main())


def test_the_walk_finds_what_there_is() -> None:
    paths = {asked.path for asked in ALL}
    assert len(ALL) > 30
    assert paths >= OPEN
    assert paths >= {"/metrics", "/v1/models", "/v1/models/digits/predict", "/v2/models/digits/infer", LOAD}
    assert {asked for asked in ALL if changes_something(asked)} == {
        Asked("POST", LOAD),
        Asked("POST", "/v2/repository/models/digits/unload"),
        *LEVELS,
        *BASELINES,
    }


def test_what_a_route_would_take_for_its_end_does_not_end_before_the_gate() -> None:
    ends = [Asked(method, f"{path}%0a") for method, path in [*LEVELS, *BASELINES]]
    assert refusals(ends, keys=BOTH) == dict.fromkeys(ends, 401)
    assert refusals(ends, [bearing(SHOP)], keys=BOTH) == dict.fromkeys(ends, 403)


def test_without_keys_all_is_open_but_what_changes_something() -> None:
    changing = [asked for asked in ALL if changes_something(asked)]
    for headers in ((), [bearing(OPS)]):
        assert refusals(ALL, headers) == dict.fromkeys(changing, 403)


def test_with_inference_keys_alone_only_probes_and_the_page_s_files_are_open() -> None:
    keys = f"inference:shop:{SHOP}"
    closed = {asked for asked in ALL if asked.path not in OPEN}
    changing = {asked for asked in ALL if changes_something(asked)}
    assert refusals(ALL, keys=keys) == {asked: 403 if asked in changing else 401 for asked in closed}
    assert refusals(ALL, [bearing(SHOP)], keys=keys) == dict.fromkeys(changing, 403)
    assert refusals(ALL, [bearing(OPS)], keys=keys).keys() == closed


def test_with_admin_keys_alone_only_what_changes_something_is_closed() -> None:
    keys = f"admin:ops:{OPS}"
    changing = [asked for asked in ALL if changes_something(asked)]
    assert refusals(ALL, keys=keys) == dict.fromkeys(changing, 401)
    assert refusals(ALL, [bearing(SHOP)], keys=keys) == dict.fromkeys(changing, 401)
    assert refusals(ALL, [bearing(OPS)], keys=keys) == {}


def test_with_both_an_admin_s_key_opens_all_and_another_what_changes_nothing() -> None:
    changing = [asked for asked in ALL if changes_something(asked)]
    closed = [asked for asked in ALL if asked.path not in OPEN]
    assert refusals(ALL, keys=BOTH) == dict.fromkeys(closed, 401)
    assert refusals(ALL, [bearing(SHOP)], keys=BOTH) == dict.fromkeys(changing, 403)
    assert refusals(ALL, [bearing(OPS)], keys=BOTH) == {}


def test_the_description_of_each_address_says_which_key_it_takes() -> None:
    with composed() as application:
        described = application_of(application).openapi()
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    takes: dict[Asked, Any] = {}
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            asked = Asked(method.upper(), re.sub(r"\{[^}]*\}", lambda part: example(part[0]), path))
            takes[asked] = (operation["security"], {"401", "403"} <= operation["responses"].keys())
    for asked, (security, may_be_refused) in takes.items():
        if asked.path in OPEN:
            assert (security, may_be_refused) == ([], False)
        else:
            optional: list[Any] = [] if changes_something(asked) else [{}]
            assert (security, may_be_refused) == ([*optional, {"key": []}], True)
    assert takes.keys() <= set(ALL)
    assert {Asked("POST", LOAD), Asked("GET", "/livez"), Asked("GET", "/v1/models")} <= takes.keys()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "POST "])
def test_a_method_that_no_address_takes_does_nothing(method: str) -> None:
    async def main() -> None:
        with composed(model_control="explicit") as application:
            taken = {asked.path for asked in ALL if asked.method == method}
            for path in sorted({asked.path for asked in ALL} - taken):
                found = await answer(application, Asked(method, path))
                assert found.status in (404, 405), (method, path)
            assert application.asked == []

    asyncio.run(main())


# What a key must look like


@pytest.mark.parametrize(
    "headers",
    [
        [],
        *([(b"authorization", value)] for value in (b"", b" ", b"Bearer", b"Bearer ", OPS.encode())),
        [(b"authorization", b"Basic " + OPS.encode())],
        [(b"authorization", b"Bearer " + OPS.encode()[:-1])],
        [(b"authorization", b"Bearer " + OPS.encode() + b"x")],
        [(b"authorization", b"Bearer " + b"\xff\xfe\x80")],
        [(b"authorization", b"Bearer " + OPS.encode() + b"\xff")],
        [(b"authorization", b"\xff" * 50)],
        [(b"authorization", b"Bearer " + b"x" * (1 << 20))],
        [bearing(OPS), bearing(OPS)],
        [bearing(OPS), bearing("wrong-key-0123456789")],
        [bearing("wrong-key-0123456789"), bearing(OPS)],
        [(b"authorization", f"Bearer {OPS}, Bearer {OPS}".encode())],
        [(b"proxy-authorization", f"Bearer {OPS}".encode())],
        [(b"x-api-key", OPS.encode())],
        [(b"cookie", f"authorization=Bearer {OPS}".encode())],
    ],
)
def test_a_header_that_bears_no_key_opens_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    closed = [asked for asked in ALL if asked.path not in OPEN]
    assert refusals(ALL, headers, keys=BOTH) == dict.fromkeys(closed, 401)


def test_who_is_not_known_is_told_how_to_become_and_who_is_that_it_is_not_enough() -> None:
    async def main() -> list[Answer]:
        with composed(model_control="explicit", keys=BOTH) as application:
            return [
                await answer(application, Asked("GET", "/v1/models")),
                await answer(application, Asked("GET", "/v2/models/digits")),
                await answer(application, Asked("POST", LOAD), bearing(SHOP)),
            ]

    unknown, protocol, forbidden = asyncio.run(main())
    for each in (unknown, protocol):
        assert (each.status, each.headers["www-authenticate"]) == (401, "Bearer")
        assert each.headers["connection"] == "close", "what follows is not read"
    assert unknown.headers["content-type"].startswith("application/problem+json")
    assert b'"unauthorized"' in unknown.body
    assert protocol.body == b'{"error":"this needs a key: send it as Authorization: Bearer KEY"}'
    assert (forbidden.status, forbidden.body) == (403, b'{"error":"this needs an admin key"}')
    assert "www-authenticate" not in forbidden.headers


def test_no_answer_and_no_count_repeats_what_was_sent() -> None:
    async def main() -> None:
        with composed(keys=BOTH) as application:
            sent = "sent-by-mistake-0123456789"
            found = await answer(application, Asked("GET", "/v1/models"), bearing(sent))
            assert sent.encode() not in found.body
            assert sent not in str(found.headers) + str(application.counted())

    asyncio.run(main())


def test_requests_that_need_a_key_are_counted_by_its_name_and_others_are_not() -> None:
    async def main() -> dict[str, float]:
        with composed(model_control="explicit", keys=BOTH) as application:
            for key, times in ((SHOP, 3), (OPS, 2), ("of-nobody-0123456789", 4)):
                for _ in range(times):
                    await answer(application, Asked("GET", "/v1/models"), bearing(key))
            await answer(application, Asked("GET", "/v1/models"))
            await answer(application, Asked("GET", "/livez"), bearing(SHOP))
            await answer(application, Asked("POST", LOAD), bearing(SHOP))
            return application.counted()

    assert asyncio.run(main()) == {"shop": 4, "ops": 2, "": 5}


# Ways around it

M = "/v2/repository/models"
TRICKS = [
    *(LOAD, f"/{LOAD}", f"//{LOAD}", f"/.{LOAD}", f"/%2e{LOAD}", f"/%2f{LOAD}", f"%20{LOAD}", f"/x/..{LOAD}"),
    *("/v2//repository/models/digits/load", "/v2/repository//models/digits/load", f"{M}//digits/load"),
    *(f"{LOAD}/", f"{LOAD}//", f"{LOAD}/.", f"{LOAD}/..", f"{LOAD}.", f"{LOAD};x=1", f"{LOAD}?key=1"),
    *(f"{LOAD}%00", f"{LOAD}%20", f"{LOAD}%0a", f"{LOAD}%3f", f"{LOAD}%23", f"{LOAD}%252f", f"{LOAD}/unload"),
    *(LOAD.upper(), LOAD.title(), LOAD.replace("v2", "V2"), f"{M}/digits/LOAD", f"{M.upper()}/digits/load"),
    *(
        LOAD.replace("/", "%2F"),
        LOAD.replace("/", "%2f", 1),
        LOAD.replace("v2", "%76%32"),
        f"{M}%2Fdigits%2Fload",
    ),
    *(LOAD.replace("models", "model%73"), LOAD.replace("load", "%6coad"), LOAD.replace("digits", "%64igits")),
    *(
        "/v2/repository/./models/digits/load",
        "/v2/repository/x/../models/digits/load",
        f"{M}/../models/x/load",
    ),
    *("/v2/repository/index/../models/digits/load", "/v2/models/x/infer/../../../repository/models/x/load"),
    *(f"/page/..{LOAD}", f"/page/../..{LOAD}", f"/page/..%2f{LOAD}", f"/livez{LOAD}", f"/livez/..{LOAD}"),
    *(
        f"/docs/..{LOAD}",
        f"/v1/models/../..{LOAD}",
        f"{LOAD}/infer",
        f"{LOAD}/predict",
        f"{LOAD}/../../index",
    ),
    *(f"{M}/predict/load", f"{M}/infer/load", "/v2/models/digits/load", f"{M}/./load", f"{M}/../load"),
    *(M, f"{M}/", f"{M}/digits", f"{M}/digits/", f"{M}/digits%2f/load", f"{M}/%c4%b0/load", f"{M}/%ff/load"),
    *(
        LOAD.replace("/", "\\"),
        f"{M}\\digits\\load",
        LOAD.replace("/", "\uff0f"),
        LOAD.replace("d", "\u217e"),
    ),
    *(f"{M}/ /load", "*", ""),
    *(f"{M}%2Fdigits%2Fload", f"{M}/../models/x/load", LOAD.replace("d", "\u217e"), f"{LOAD}/../../index"),
]


@pytest.mark.parametrize("headers", [[], [bearing(SHOP)]], ids=["without a key", "with another key"])
@pytest.mark.parametrize("keys", ["", f"inference:shop:{SHOP}", f"admin:ops:{OPS}", BOTH])
def test_however_the_address_is_written_nothing_is_loaded_without_an_admin_s_key(
    keys: str, headers: list[tuple[bytes, bytes]]
) -> None:
    async def main() -> None:
        more = [
            (b"x-http-method-override", b"POST"),
            (b"x-forwarded-prefix", b"/livez"),
            (b"x-original-url", b"/"),
        ]
        with composed(model_control="explicit", keys=keys) as application:
            for path in TRICKS:
                for method in ("POST", "GET", "PUT", "HEAD", "post"):
                    await answer(application, Asked(method, path), *headers, *more)
                    await answer(application, Asked(method, path.replace("load", "unload")), *headers)
                    assert application.asked == [], (method, path)

    asyncio.run(main())


def test_with_an_admin_s_key_it_is_loaded() -> None:
    async def main() -> None:
        with composed(model_control="explicit", keys=BOTH) as application:
            for action in ("load", "unload"):
                path = f"/v2/repository/models/digits/{action}"
                assert (await answer(application, Asked("POST", path), bearing(OPS))).status == 200
            assert [(each.action, each.model) for each in application.asked] == [
                ("load", "digits"),
                ("unload", "digits"),
            ]

    asyncio.run(main())


@pytest.mark.parametrize("control", ["none", "poll"])
def test_where_nothing_is_loaded_on_request_an_admin_s_key_changes_nothing(control: str) -> None:
    async def main() -> None:
        with composed(model_control=control, keys=BOTH) as application:
            found = await answer(application, Asked("POST", LOAD), bearing(OPS))
            assert (found.status, application.asked) == (403, [])
            assert f"model_control is {control}".encode() in found.body

    asyncio.run(main())


# Over the wire


def on_the_wire(*requests: bytes, **settings: Any) -> tuple[list[int], list[str]]:
    """The statuses of the answers to requests, each on a connection of its own; what was asked for."""

    async def main() -> tuple[list[int], list[str]]:
        with composed(**{"model_control": "explicit", **settings}) as application:
            async with serving(application.app) as running:
                answers = [await received(running.connect(request)) for request in requests]
            return [int(each.split(b" ")[1]) for each in answers], [each.model for each in application.asked]

    return run(main())


def request_of(target: str, *headers: str, method: str = "POST") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        "Content-Length: 0",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_over_our_server_too_no_way_of_writing_the_address_leads_around_the_gate() -> None:
    written = [path for path in TRICKS if path.isascii() and " " not in path and path]
    written += [f"http://test{LOAD}", f"http://test/livez/..{LOAD}", f"//test{LOAD}", f"{LOAD}#x"]
    statuses, asked = on_the_wire(*map(request_of, written), keys=BOTH)
    assert asked == []
    assert 200 not in statuses
    assert set(statuses) <= {307, 400, 401, 403, 404, 405}


@pytest.mark.parametrize(
    "headers",
    [
        (f"Authorization: Bearer {OPS}", f"Authorization: Bearer {OPS}"),
        (f"Authorization: Bearer {OPS}\xff",),
        (f"Authorization: Basic {OPS}",),
        ("Authorization:",),
        (f"Authorization : Bearer {OPS}",),
        (f"Authorization: Bearer\r\n {OPS}",),
    ],
)
def test_over_our_server_too_a_header_that_bears_no_key_opens_nothing(headers: tuple[str, ...]) -> None:
    (status,), asked = on_the_wire(request_of(LOAD, *headers), keys=BOTH)
    assert asked == []
    assert status in (400, 401)


def test_over_our_server_a_key_is_good_in_any_case_of_its_header_s_name() -> None:
    for name in ("Authorization", "authorization", "AUTHORIZATION"):
        statuses, asked = on_the_wire(request_of(LOAD, f"{name}: Bearer {OPS}"), keys=BOTH)
        assert (statuses, asked) == ([200], ["digits"])


def test_behind_a_refusal_no_request_follows_on_the_connection() -> None:
    """What looks like one may be the refused one's body."""
    inner = request_of(LOAD, f"Authorization: Bearer {OPS}")
    outer = f"POST {LOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(inner)}\r\n\r\n".encode()
    statuses, asked = on_the_wire(outer + inner, keys=BOTH)
    assert (statuses, asked) == ([401], [])
