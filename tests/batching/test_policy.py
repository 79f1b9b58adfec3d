"""The policy takes what waits, oldest first, one lane at a time, and never what nobody wants any more."""

from __future__ import annotations

from copy import copy
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batching.job import Job, Part
from service.batching.policy import Decision, Limits, decide
from tests.batching.jobs import NOW, A, B, job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


AT_ONCE = Limits(max_waiting_rows=1000)
PATIENT = Limits(max_waiting_rows=1000, max_delay_s=2.0)


def by_lane(waiting: Sequence[Job]) -> list[list[Job]]:
    """The jobs of each lane apart, in the order in which they stand."""
    return [[j for j in waiting if j.lane == lane] for lane in dict.fromkeys(j.lane for j in waiting)]


def run(waiting: Sequence[Job], max_batch: int = 4, limits: Limits = AT_ONCE) -> Decision[Job]:
    return decide(by_lane(waiting), {A: max_batch, B: max_batch}, limits, NOW)


def whole(*jobs: Job) -> tuple[Part[Job], ...]:
    return tuple(Part(j, 0, j.rows) for j in jobs)


# Sentences


def test_nothing_waits_so_nothing_runs_and_nobody_looks_again_until_a_job_comes() -> None:
    assert run([]) == decide([[], []], {}, PATIENT, NOW) == Decision(run=(), dropped=(), wait_s=None)


def test_one_job_runs_at_once() -> None:
    only = job()
    assert run([only]) == Decision(run=whole(only))


def test_jobs_join_in_order_until_the_batch_is_full() -> None:
    waiting = [job(2), job(1), job(1), job(1)]
    assert run(waiting) == Decision(run=whole(*waiting[:3]))


def test_a_job_that_does_not_fit_ends_the_batch_so_that_no_younger_one_overtakes_it() -> None:
    waiting = [job(3), job(2), job(1)]
    assert run(waiting) == Decision(run=whole(waiting[0]))


def test_a_job_larger_than_a_batch_gives_a_full_batch_when_it_is_the_oldest() -> None:
    waiting = [job(9), job(1)]
    assert run(waiting) == Decision(run=(Part(waiting[0], 0, 4),))
    waiting[0].taken = 4
    assert run(waiting) == Decision(run=(Part(waiting[0], 4, 8),))


def test_others_join_the_last_rows_of_a_job_that_was_split() -> None:
    waiting = [job(9, taken=8), job(2), job(1), job(1)]
    assert run(waiting) == Decision(run=(Part(waiting[0], 8, 9), *whole(*waiting[1:3])))


def test_a_job_larger_than_a_batch_does_not_join_another() -> None:
    waiting = [job(1), job(9), job(1)]
    assert run(waiting) == Decision(run=whole(waiting[0]))


def test_what_is_left_of_a_job_may_join_one_that_turned_out_to_be_older() -> None:
    waiting = [job(2), job(9, taken=8)]
    assert run(waiting) == Decision(run=(*whole(waiting[0]), Part(waiting[1], 8, 9)))


@pytest.mark.parametrize("dead", [{"cancelled": True}, {"deadline": NOW}])
def test_a_job_that_is_partly_computed_and_not_wanted_any_more_gives_no_more_rows(
    dead: dict[str, Any],
) -> None:
    waiting = [job(9, taken=4, **dead), job(1)]
    assert run(waiting) == Decision(run=whole(waiting[1]), dropped=(waiting[0],))


def test_the_oldest_job_chooses_the_lane_and_others_wait_their_turn() -> None:
    oldest = job(1, B, arrived=NOW - 1)
    waiting = [job(1, A), oldest, job(1, B), job(1, B, "float32"), job(1, B)]
    assert run(waiting) == Decision(run=whole(oldest, waiting[2], waiting[4]))


def test_every_model_has_its_own_limit() -> None:
    waiting = [job(), job(), job()]
    assert decide([waiting], {A: 2, B: 9}, AT_ONCE, NOW) == Decision(run=whole(*waiting[:2]))


def test_who_is_cancelled_or_late_is_dropped_and_takes_no_room() -> None:
    waiting = [job(4, cancelled=True), job(3), job(4, deadline=NOW - 1), job(1)]
    assert run(waiting) == Decision(run=whole(waiting[1], waiting[3]), dropped=(waiting[0], waiting[2]))


def test_a_cancelled_job_does_not_choose_the_lane() -> None:
    gone, live = job(1, B, arrived=NOW - 2, cancelled=True), job(1, A, arrived=NOW - 1)
    assert run([gone, live, job(1, B)]) == Decision(run=whole(live), dropped=(gone,))


def test_when_all_are_dropped_nothing_runs_and_nobody_waits() -> None:
    gone, late = job(cancelled=True), job(model=B, deadline=NOW)
    assert run([gone, late], limits=PATIENT) == Decision(dropped=(gone, late))


def test_the_dropped_leave_even_while_others_wait_for_company() -> None:
    gone, live = job(cancelled=True), job()
    assert run([gone, live], limits=PATIENT) == Decision(dropped=(gone,), wait_s=2.0)


@pytest.mark.parametrize(("age", "left"), [(0.0, 2.0), (0.5, 1.5), (1.75, 0.25)])
def test_delay_is_counted_from_the_oldest_arrival(age: float, left: float) -> None:
    waiting = [job(arrived=NOW - age), job(arrived=NOW)]
    assert run(waiting, limits=PATIENT) == Decision(wait_s=left)


@pytest.mark.parametrize("age", [2.0, 3.0])
def test_a_job_that_waited_for_the_whole_delay_runs_with_whoever_came(age: float) -> None:
    waiting = [job(arrived=NOW - age), job(arrived=NOW)]
    assert run(waiting, limits=PATIENT) == Decision(run=whole(*waiting))


@pytest.mark.parametrize("rows", [[4], [9], [2, 2], [3, 2], [1, 9], [1, 1, 1, 1, 1]])
def test_a_full_batch_waits_for_nobody(rows: list[int]) -> None:
    decision = run([job(n) for n in rows], limits=PATIENT)
    assert decision.run
    assert decision.wait_s is None


def test_nobody_is_kept_waiting_for_company_past_a_deadline() -> None:
    """An idle engine that waits until a job is too late has refused it for nothing."""
    waiting = [job(), job(deadline=NOW + 2.0)]
    assert run(waiting, limits=PATIENT) == Decision(run=whole(*waiting))


def test_while_the_oldest_lane_waits_for_company_a_full_one_runs() -> None:
    oldest, full = job(arrived=NOW - 1), job(4, B)
    assert run([oldest, full], limits=PATIENT) == Decision(run=whole(full))
    assert run([oldest, job(3, B)], limits=PATIENT) == Decision(wait_s=1.0)


def test_a_deadline_in_a_younger_lane_does_not_pass_while_the_oldest_waits_for_company() -> None:
    oldest, urgent = job(arrived=NOW - 1), job(1, B, deadline=NOW + 0.5)
    assert run([oldest, urgent], limits=PATIENT) == Decision(run=whole(urgent))


# Everything small, and much that is random, against the rules said slowly


def expected_batch(lane: Sequence[Job], most: int) -> tuple[Part[Job], ...]:
    """`lane` are the live jobs of one lane: as many from its start as fit, or a piece of the first."""
    sums = list(accumulate(j.rows - j.taken for j in lane))
    fitting = [count for count in range(1, len(lane) + 1) if sums[count - 1] <= most]
    if not fitting:
        return (Part(lane[0], lane[0].taken, lane[0].taken + most),)
    return tuple(Part(j, j.taken, j.rows) for j in lane[: max(fitting)])


def may_wait_until(lane: Sequence[Job], most: int, limits: Limits) -> float:
    """The moment up to which a lane's batch waits for company; in the past where it need not."""
    until = lane[0].arrived + limits.max_delay_s
    has_room = sum(j.rows - j.taken for j in lane) < most
    in_no_hurry = all(j.deadline > until for j in lane)
    return until if has_room and in_no_hurry else NOW


def check(waiting: Sequence[Job], max_batch: Mapping[int, int], limits: Limits) -> Decision[Job]:
    lanes, before = by_lane(waiting), [copy(vars(j)) for j in waiting]
    decision = decide(lanes, max_batch, limits, NOW)
    assert [vars(j) for j in waiting] == before, "a pure function changes nothing"
    assert decide(map(iter, lanes), max_batch, limits, NOW) == decision, "and answers the same again"

    dead = {j for j in waiting if j.cancelled or j.deadline <= NOW}
    live = sorted(
        (alive for lane in lanes if (alive := [j for j in lane if j not in dead])),
        key=lambda lane: lane[0].arrived,
    )
    until = [may_wait_until(lane, max_batch[lane[0].lane.model], limits) for lane in live]
    ready = [lane for lane, moment in zip(live, until, strict=True) if moment <= NOW]
    if ready:
        most = max_batch[ready[0][0].lane.model]
        assert decision.run == expected_batch(ready[0], most)
        assert 0 < sum(part.stop - part.start for part in decision.run) <= most
        assert decision.wait_s is None
    else:
        assert decision.run == ()
        assert decision.wait_s == (min(until) - NOW if until else None)

    assert len(set(decision.dropped)) == len(decision.dropped), "told once"
    assert set(decision.dropped) <= dead, "nobody wanted is dropped"
    if not decision.run:
        assert set(decision.dropped) == dead, "an engine that pauses has told everybody who is dead"
    for lane in lanes:
        ran = [lane.index(part.job) for part in decision.run if part.job in lane]
        first_live = next((place for place, j in enumerate(lane) if j not in dead), len(lane))
        passed = lane[: max([first_live, *ran])]
        assert {j for j in passed if j in dead} <= set(decision.dropped), "nobody dead is passed over"
    return decision


ROWS: list[dict[str, int]] = [{"rows": 1}, {"rows": 2}, {"rows": 6, "taken": 1}]
STATES: list[dict[str, Any]] = [{}, {"cancelled": True}, {"deadline": NOW}, {"deadline": NOW + 0.1}]


@pytest.mark.parametrize("limits", [AT_ONCE, PATIENT, Limits(1000, max_delay_s=0.5)], ids=["0", "2", "0.5"])
@pytest.mark.parametrize("max_batch", [1, 2, 4])
def test_every_queue_of_up_to_three_jobs_is_decided_rightly(max_batch: int, limits: Limits) -> None:
    kinds = list(product(ROWS, [A, B], STATES))
    seen = set()
    for length in range(4):
        for chosen in product(kinds, repeat=length):
            waiting = [
                job(model=model, arrived=NOW - length + index, **rows, **state)
                for index, (rows, model, state) in enumerate(chosen)
            ]
            decision = check(waiting, {A: max_batch, B: 2}, limits)
            seen.add((len(decision.run), len(decision.dropped), decision.wait_s))
    assert len(seen) >= 8, "the cases differ"


@st.composite
def queues(draw: st.DrawFn) -> list[Job]:
    ages = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 5.0]), max_size=12))
    sizes = [draw(st.tuples(st.integers(1, 9), st.integers(0, 8))) for _ in ages]
    return [
        job(
            rows,
            draw(st.sampled_from([A, B])),
            draw(st.sampled_from(["uint8", "float32"])),
            arrived=NOW - age,
            deadline=NOW + draw(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0, 60.0, 60.0, 60.0])),
            cancelled=draw(st.integers(0, 3)) == 0,
            taken=min(taken, rows - 1),
        )
        for age, (rows, taken) in zip(sorted(ages, reverse=True), sizes, strict=True)
    ]


@given(queues(), st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 0.5, 2.0]))
@settings(deadline=None, max_examples=500)
def test_any_queue_is_decided_rightly(waiting: list[Job], a: int, b: int, delay: float) -> None:
    check(waiting, {A: a, B: b}, Limits(1000, max_delay_s=delay))
