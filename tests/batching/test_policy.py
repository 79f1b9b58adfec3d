"""The policy takes what waits, oldest first, one lane at a time, and never what nobody wants any more."""

from __future__ import annotations

from copy import copy
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.job import Answer, Job, Lane, ModelKey
from service.batching.policy import Decision, Limits, decide, is_late

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

A, B = ModelKey("a", 1), ModelKey("b", 1)
NOW = 100.0
AT_ONCE = Limits(max_waiting_rows=1000)
PATIENT = Limits(max_waiting_rows=1000, max_delay_s=2.0)


def nobody(outcome: Any) -> None:
    raise AssertionError("the policy answers nobody")


def job(rows: int = 1, key: ModelKey = A, dtype: str = "uint8", **more: Any) -> Job:
    settings: dict[str, Any] = {"arrived": NOW, **more}
    return Job(key, np.zeros((rows, 1, 2, 2), dtype), nobody, **settings)


def run(waiting: Sequence[Job], max_batch: int = 4, limits: Limits = AT_ONCE) -> Decision:
    return decide(waiting, {A: max_batch, B: max_batch}, limits, NOW)


# The job's own states


def test_a_job_says_what_it_is() -> None:
    some = job(3, ModelKey("digits", 2))
    assert repr(some) == "<Job digits/2 3 rows>"
    some.cancelled = True
    assert repr(some) == "<Job digits/2 3 rows cancelled>"


def test_a_lane_is_a_model_a_version_and_a_dtype() -> None:
    lanes = {job(key=key, dtype=d).lane for key in (A, ModelKey("a", 2), B) for d in ("uint8", "float32")}
    assert len(lanes) == 6
    assert Lane(A, "uint8") in lanes


def test_jobs_of_equal_rows_are_not_the_same_job() -> None:
    first, second = job(), job()
    assert first != second
    assert len({first, second}) == 2


def test_a_job_is_late_from_its_deadline_on() -> None:
    some = job(deadline=NOW)
    assert [is_late(some, now) for now in (NOW - 1, NOW, NOW + 1)] == [False, True, True]
    assert not is_late(job(), float("inf"))


def test_an_answer_is_a_value() -> None:
    answer = Answer(np.zeros((1, 2), np.float32), queue_s=0.1, compute_s=0.2, batch_rows=3)
    with pytest.raises(AttributeError):
        answer.batch_rows = 4  # type: ignore[misc]  # that it is frozen is the point


# Sentences


def test_nothing_waits_so_nothing_runs_and_nobody_looks_again_until_a_job_comes() -> None:
    assert run([]) == Decision(run=(), dropped=(), wait_s=None)


def test_one_job_runs_at_once() -> None:
    only = job()
    assert run([only]) == Decision(run=(only,))


def test_jobs_join_in_order_until_the_batch_is_full() -> None:
    waiting = [job(2), job(1), job(1), job(1)]
    assert run(waiting) == Decision(run=tuple(waiting[:3]))


def test_a_job_that_does_not_fit_ends_the_batch_so_that_no_younger_one_overtakes_it() -> None:
    waiting = [job(3), job(2), job(1)]
    assert run(waiting) == Decision(run=(waiting[0],))


def test_a_job_larger_than_a_batch_runs_alone() -> None:
    waiting = [job(9), job(1)]
    assert run(waiting) == Decision(run=(waiting[0],))
    assert run(waiting[::-1]) == Decision(run=(waiting[1],))


def test_the_oldest_job_chooses_the_lane_and_others_wait_their_turn() -> None:
    waiting = [job(1, B), job(1, A), job(1, B), job(1, B, "float32"), job(1, B)]
    assert run(waiting) == Decision(run=(waiting[0], waiting[2], waiting[4]))


def test_every_model_has_its_own_limit() -> None:
    waiting = [job(1, key) for key in (A, A, A)]
    assert decide(waiting, {A: 2, B: 9}, AT_ONCE, NOW) == Decision(run=tuple(waiting[:2]))


def test_who_is_cancelled_or_late_is_dropped_and_takes_no_room() -> None:
    gone, late, live = job(4, cancelled=True), job(4, deadline=NOW - 1), job(4)
    assert run([gone, late, live]) == Decision(run=(live,), dropped=(gone, late))


def test_a_cancelled_job_does_not_choose_the_lane() -> None:
    gone, live = job(1, B, cancelled=True), job(1, A)
    assert run([gone, live, job(1, B)]).run == (live,)


def test_when_all_are_dropped_nothing_runs_and_nobody_waits() -> None:
    gone, late = job(cancelled=True), job(deadline=NOW)
    assert run([gone, late], limits=PATIENT) == Decision(dropped=(gone, late))


def test_the_dropped_are_told_even_while_others_wait_for_company() -> None:
    gone, live = job(cancelled=True), job()
    assert run([gone, live], limits=PATIENT) == Decision(dropped=(gone,), wait_s=2.0)


@pytest.mark.parametrize(("age", "left"), [(0.0, 2.0), (0.5, 1.5), (1.75, 0.25)])
def test_delay_is_counted_from_the_oldest_arrival(age: float, left: float) -> None:
    waiting = [job(arrived=NOW - age), job(arrived=NOW)]
    assert run(waiting, limits=PATIENT) == Decision(wait_s=left)


@pytest.mark.parametrize("age", [2.0, 3.0])
def test_a_job_that_waited_for_the_whole_delay_runs_with_whoever_came(age: float) -> None:
    waiting = [job(arrived=NOW - age), job(arrived=NOW)]
    assert run(waiting, limits=PATIENT) == Decision(run=tuple(waiting))


@pytest.mark.parametrize("rows", [[4], [9], [2, 2], [3, 2], [1, 1, 1, 1, 1]])
def test_a_full_batch_waits_for_nobody(rows: list[int]) -> None:
    decision = run([job(n) for n in rows], limits=PATIENT)
    assert decision.run
    assert decision.wait_s is None


def test_a_younger_full_lane_does_not_push_in_before_the_oldest_job() -> None:
    waiting = [job(1, A), job(4, B)]
    assert run(waiting, limits=PATIENT) == Decision(wait_s=2.0)


def test_nobody_is_kept_waiting_for_company_past_a_deadline() -> None:
    """An idle engine that waits until a job is too late has refused it for nothing."""
    decision = run([job(deadline=NOW + 0.5)], limits=PATIENT)
    assert decision.run or (decision.wait_s or 0) < 0.5


# Everything small, and much that is random


def check(waiting: Sequence[Job], max_batch: Mapping[ModelKey, int], limits: Limits) -> None:
    before = [copy(j) for j in waiting]
    decision = decide(waiting, max_batch, limits, NOW)

    assert [vars(j) for j in waiting] == [vars(j) for j in before], "a pure function changes nothing"
    assert decide(iter(waiting), max_batch, limits, NOW) == decision, "and answers the same again"

    place = {j: index for index, j in enumerate(waiting)}
    dead = [j for j in waiting if j.cancelled or is_late(j, NOW)]
    live = [j for j in waiting if j not in dead]
    assert set(decision.run) <= set(live), "nobody cancelled or late is run"
    assert set(decision.dropped) <= set(dead), "nobody wanted is dropped"
    for chosen in (decision.run, decision.dropped):
        places = [place[j] for j in chosen]
        assert places == sorted(set(places)), "in order, and each once"

    if decision.run:
        assert decision.wait_s is None
        assert decision.run[0] is live[0], "oldest first"
        lane = [j for j in live if j.lane == live[0].lane]
        assert list(decision.run) == lane[: len(decision.run)], "one lane, nobody overtaken"
        limit = max_batch[live[0].key]
        rows = sum(map(len, decision.run))
        assert rows <= limit or len(decision.run) == 1, "within the limit, or one larger job alone"
        rest = lane[len(decision.run) :]
        assert not rest or rows + len(rest[0]) > limit, "as much as fits"
    elif live:
        assert decision.wait_s is not None
        assert limits.max_delay_s > 0
        assert 0 < decision.wait_s <= live[0].arrived + limits.max_delay_s - NOW
        lane_rows = sum(len(j) for j in live if j.lane == live[0].lane)
        assert lane_rows < max_batch[live[0].key], "who waits has room for company"
    else:
        assert decision == Decision(dropped=tuple(dead))
    if not decision.run:
        assert list(decision.dropped) == dead, "everybody who is dead is told"


STATES: list[dict[str, Any]] = [{}, {"cancelled": True}, {"deadline": NOW - 1}]


@pytest.mark.parametrize("limits", [AT_ONCE, PATIENT, Limits(1000, max_delay_s=0.5)])
@pytest.mark.parametrize("max_batch", [1, 2, 4])
def test_every_queue_of_up_to_three_jobs_is_decided_rightly(max_batch: int, limits: Limits) -> None:
    kinds = list(product([1, 3], [A, B], STATES))
    for length in range(4):
        for chosen in product(kinds, repeat=length):
            waiting = [
                job(rows, key, arrived=NOW - length + index, **state)
                for index, (rows, key, state) in enumerate(chosen)
            ]
            check(waiting, {A: max_batch, B: 2}, limits)


@st.composite
def queues(draw: st.DrawFn) -> list[Job]:
    ages = draw(st.lists(st.floats(0, 5), max_size=12))
    moments = st.none() | st.floats(NOW - 1, NOW + 1)
    return [
        job(
            draw(st.integers(1, 6)),
            draw(st.sampled_from([A, B])),
            draw(st.sampled_from(["uint8", "float32"])),
            arrived=NOW - age,
            deadline=draw(moments),
            cancelled=draw(st.integers(0, 3)) == 0,
        )
        for age in sorted(ages, reverse=True)
    ]


@given(queues(), st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.5, 2.0]))
@settings(deadline=None)
def test_any_queue_is_decided_rightly(waiting: list[Job], a: int, b: int, delay: float) -> None:
    check(waiting, {A: a, B: b}, Limits(1000, max_delay_s=delay))


@given(queues(), st.integers(1, 8))
@settings(deadline=None)
def test_deciding_again_and_again_empties_any_queue(waiting: list[Job], max_batch: int) -> None:
    left, seen = list(waiting), []
    while left:
        decision = run(left, max_batch)
        leaving = [*decision.run, *decision.dropped]
        assert leaving
        seen += leaving
        left = [j for j in left if j not in leaving]
    assert len(seen) == len(waiting)
    assert set(seen) == set(waiting)
