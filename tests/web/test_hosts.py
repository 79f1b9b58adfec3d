"""Hosts: programs may ask under any usual name, pages of other sites under none."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import Forbidden
from service.settings import Settings
from service.web.hosts import Hosts
from tests.web.composed import composed
from tests.web.test_gate import ALL, OPS, Answer, Asked, answer, bearing

POD = "10.244.1.17:8000"
LOOPBACK: dict[str, Any] = {"host": "127.0.0.1"}
NETWORK: dict[str, Any] = {"host": "0.0.0.0"}
NAMED: dict[str, Any] = {"host": "0.0.0.0", "allowed_hosts": "api.example.com, *.inner.example.com"}
ANY: dict[str, Any] = {"host": "127.0.0.1", "allowed_hosts": "*"}
PAGE = "https://app.example.net"


def is_refused(settings: dict[str, Any], host: str | None, method: str = "GET", **more: str) -> bool:
    """Whether such a request is; `more` are headers, with _ for -."""
    given = ({} if host is None else {"host": host}) | more
    headers = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()]
    try:
        Hosts(Settings(**settings)).check(method, headers)
    except Forbidden:
        return True
    return False


@pytest.mark.parametrize("settings", [LOOPBACK, NETWORK, NAMED, ANY], ids=str)
@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8000", "LOCALHOST:8000", "localhost.", "foldserve.localhost"),
        *(
            "127.0.0.1",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:8000",
            "[fe80::1%eth0]:8000",
            POD,
            "",
            ":8000",
            None,
        ),
    ],
)
def test_no_page_has_these_names_so_that_they_are_always_good(
    settings: dict[str, Any], host: str | None
) -> None:
    assert not is_refused(settings, host)


REBOUND = (
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "mylocalhost"),
    *(
        "127.0.0.1.nip.io:8000",
        "test",
        "2130706433.",
        "0x7f000001",
        "127.1",
        "[::1].evil.example",
        "*",
        "\xff",
    ),
)


@pytest.mark.parametrize("host", REBOUND)
def test_a_page_that_rebinds_its_name_is_refused_where_only_this_machine_may_ask(host: str) -> None:
    assert is_refused(LOOPBACK, host)
    assert is_refused(LOOPBACK | {"host": "::1"}, host)
    assert is_refused(LOOPBACK | {"host": "localhost"}, host)
    assert is_refused(NAMED, host)
    assert not is_refused(NETWORK, host), "any name may be this machine's"
    assert not is_refused(ANY, host)


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        *(("api.example.com", False), ("API.example.com.", False), ("api.example.com:443", False)),
        *(("a.inner.example.com", False), ("b.a.inner.example.com:1", False), ("inner.example.com", True)),
        *(("xapi.example.com", True), ("example.com", True), ("x.api.example.com", True)),
        *(("xinner.example.com", True), ("api.example.com.evil.example", True)),
    ],
)
def test_names_are_compared_whole(host: str, refused: bool) -> None:
    assert is_refused(NAMED, host) is refused


CROSS = (
    {"origin": PAGE},
    {"origin": "null"},
    {"origin": "https://evil.example", "sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": "anything"},
    {"origin": "http://localhost:8000.evil.example"},
    {"origin": "http://[::1]:8000@evil.example"},
    {"origin": "file://"},
    {"origin": "http://203.0.113.5"},  # an address may be anybody's page
    {"origin": "http://127.0.0.1:3000"},
)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post"])
@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_a_page_of_another_site_may_send_nothing(headers: dict[str, str], method: str) -> None:
    for settings in (LOOPBACK, NETWORK, NAMED):
        assert is_refused(settings, "localhost:8000", method, **headers)
        assert not is_refused(settings, "localhost:8000", "GET", **headers), (
            "it may link here, and read nothing"
        )
    assert not is_refused(ANY, "localhost:8000", method, **headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://api.example.com"},
        {"origin": "https://api.example.com", "sec_fetch_site": "same-origin"},
        {"origin": PAGE, "sec_fetch_site": "same-origin"},  # behind a proxy that names the service otherwise
        {"sec_fetch_site": "none"},
    ],
    ids=str,
)
def test_programs_and_the_page_itself_may_send(headers: dict[str, str]) -> None:
    for settings in (NETWORK, NAMED, ANY):
        assert not is_refused(settings, "api.example.com", "POST", **headers)


def test_a_page_whose_host_is_named_may_send() -> None:
    trusting = NAMED | {"allowed_hosts": "api.example.com,app.example.net"}
    for site in ({}, {"sec_fetch_site": "cross-site"}):
        assert not is_refused(trusting, "api.example.com", "POST", origin=PAGE, **site)
        assert is_refused(NAMED, "api.example.com", "POST", origin=PAGE, **site)
        assert not is_refused(LOOPBACK, "localhost:8000", "POST", origin="http://localhost:3000", **site)


@pytest.mark.parametrize("names", ["http://a.example", "a/b", "a b", "a,,b", "*.", "**", "a:80", "a\n"])
def test_what_is_no_name_is_no_setting(names: str) -> None:
    with pytest.raises(ValidationError):
        Settings(allowed_hosts=names)


def test_no_address_answers_another_sites_page_whatever_key_it_bears() -> None:
    """Through the whole application, on every route that there is."""

    async def main() -> list[tuple[Asked, Answer]]:
        with composed(model_control="explicit", keys=f"admin:ops:{OPS}") as application:
            rebound = [
                (each, await answer(application, each, (b"host", b"evil.example"), bearing(OPS)))
                for each in ALL
            ]
            forged = [
                (each, await answer(application, each, (b"origin", b"https://evil.example"), bearing(OPS)))
                for each in ALL
                if each.method == "POST"
            ]
            assert application.asked == []
            return rebound + forged

    found = asyncio.run(main())
    assert len(found) > len(ALL) + 5
    for asked, refused in found:
        assert refused.status == 403, asked
        assert refused.headers["connection"] == "close"
        assert "allowed_hosts" in json.dumps(json.loads(refused.body))
