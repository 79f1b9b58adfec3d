"""A request has an id that cannot harm a log, and the id of its trace where its header is the standard's."""

from __future__ import annotations

import re

import pytest

from service.telemetry.identity import identify

# The examples of W3C Trace Context, section 3.2.4.
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-01"
NOT_SAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"


def request_id(*values: bytes) -> str:
    return identify([(b"host", b"x"), *((b"x-request-id", value) for value in values)]).request


def trace_id(*values: str) -> str:
    return identify([(b"host", b"x"), *((b"traceparent", value.encode("latin-1")) for value in values)]).trace


@pytest.mark.parametrize(
    "given", [b"1", b"x" * 128, b"3f2504e0-4f89-11d3-9a0c-0305e82c3301", b'!"#$%&()*+,-./:;<=>?@[]^_`{|}~']
)
def test_a_client_s_own_id_is_taken(given: bytes) -> None:
    assert request_id(given) == given.decode()


@pytest.mark.parametrize(
    "given",
    [
        *(b"", b"x" * 129, b"two words", b"line\nbreak", b"line\r\nX-Injected: 1", b"\x1b[31mred", b"\x00"),
        *("ü".encode(), "ü".encode("latin-1"), b"\x7f", b"\x85", "\u2028".encode(), b"tab\there"),
    ],
)
def test_an_id_that_could_harm_a_log_is_replaced(given: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{32}", request_id(given))


def test_an_id_that_is_given_twice_is_nobody_s() -> None:
    assert re.fullmatch("[0-9a-f]{32}", request_id(b"a", b"a"))


def test_ids_that_are_made_differ() -> None:
    assert len({request_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "given",
    [
        SAMPLED,
        NOT_SAMPLED,
        f" {SAMPLED}\t",
        f"cc-{TRACE}-00f067aa0ba902b7-01",
        f"01-{SAMPLED[3:]}-what-comes",
    ],
)
def test_the_trace_of_a_valid_header_is_taken(given: str) -> None:
    assert trace_id(given) == TRACE


@pytest.mark.parametrize(
    "given",
    [
        "",
        TRACE,
        f"ff-{SAMPLED[3:]}",
        f"0-{SAMPLED[3:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
        f"00-{TRACE[:-1]}-00f067aa0ba902b7-01",
        f"00-{TRACE[:-1]}g-00f067aa0ba902b7-01",
        f"00-{TRACE}-00f067aa0ba902b-01",
        f"00-{TRACE}-00f067aa0ba902b7-1",
        f"{SAMPLED}-more",
        f"{SAMPLED}x",
        f"01-{SAMPLED[3:]}x",
        f"00_{TRACE}_00f067aa0ba902b7_01",
        f"{SAMPLED}\n",
        f"{SAMPLED},{SAMPLED}",
    ],
)
def test_a_header_that_is_not_the_standard_s_is_passed_over(given: str) -> None:
    assert trace_id(given) == ""


def test_two_traces_are_none() -> None:
    assert trace_id(SAMPLED, SAMPLED) == ""
