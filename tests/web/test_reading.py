"""What of a request is being read, and by when more of it must have come; times are numbers here."""

from __future__ import annotations

import pytest

from service.settings import Settings
from service.web.reading import Reading


def reading(now: float = 100.0) -> Reading:
    settings = Settings(body_timeout_s=30, idle_timeout_s=60)
    return Reading(settings, 20.0, now)


def test_first_headers_have_their_time_from_the_connection_s_first_moment() -> None:
    first = reading()
    assert (first.part, first.deadline(105.0)) == ("opening", 120.0)
    first.begin_head(110.0)
    assert (first.part, first.deadline(115.0)) == ("head", 120.0)


def test_headers_of_a_further_request_have_theirs_from_its_first_byte() -> None:
    further = reading()
    further.begin_head(101.0)
    further.begin_body(102.0, is_unasked=False)
    further.end()
    further.begin_head(200.0)
    assert further.deadline(210.0) == 220.0


def test_next_request_may_come_late_and_is_waited_for_from_now_on() -> None:
    idle = reading()
    idle.begin_head(101.0)
    idle.begin_body(102.0, is_unasked=False)
    idle.end()
    assert [idle.deadline(now) for now in (103.0, 500.0)] == [163.0, 560.0]


@pytest.mark.parametrize(("length", "earned_s"), [(0, 0.0), (16 * 1024, 1.0), (4096, 0.25)])
def test_body_earns_a_second_with_every_16_kib(length: int, earned_s: float) -> None:
    body = reading()
    body.begin_head(101.0)
    body.begin_body(110.0, is_unasked=False)
    body.take_body(length)
    assert body.deadline(500.0) == 140.0 + earned_s


def test_time_in_which_nothing_is_read_does_not_count() -> None:
    body = reading()
    body.begin_head(101.0)
    body.begin_body(110.0, is_unasked=False)
    body.put_off(7.0)
    assert body.deadline(500.0) == 147.0


def test_client_that_waits_to_be_asked_gets_the_whole_time_again() -> None:
    body = reading()
    body.begin_head(101.0)
    body.begin_body(110.0, is_unasked=True)
    assert body.was_unasked
    body.begin_body_again(139.0, is_unasked=False)
    assert (body.was_unasked, body.deadline(500.0)) == (False, 169.0)


def test_bytes_that_are_none_of_a_body_add_up_until_there_is_one() -> None:
    chunks = reading()
    chunks.begin_head(101.0)
    chunks.take(50)
    chunks.take(60)
    assert chunks.unparsed == 110
    chunks.begin_body(102.0, is_unasked=False)
    chunks.take(9)
    assert chunks.unparsed == 9
    chunks.take_body(4)
    assert (chunks.unparsed, chunks.received) == (0, 4)
    chunks.take(3)
    chunks.end()
    assert chunks.unparsed == 0
