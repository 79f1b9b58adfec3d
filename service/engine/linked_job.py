"""The linked job: rows that a worker laid into its arena, as the engine sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.batching.job import Job, Lane
from service.engine.arena import row_bytes, slots_for
from service.engine.doorbell import DTYPES, MalformedRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from service.engine.card import ModelFacts
    from service.engine.doorbell import Ring
    from service.engine.link import Link


@dataclass(eq=False, kw_only=True)
class LinkedJob(Job):
    """A job with its rows and the place for its answers, both in the arena of its link."""

    link: Link
    ticket: int
    client: int = 0
    """Tells one client's rows from others'."""
    inputs: np.ndarray
    """uint8 pixels or float32 network inputs, `[N, C, H, W]`."""
    outputs: np.ndarray
    """float32 `[N, ...]`, or `[N, 2, C]` moments, behind the inputs."""
    # The mutable state: how far it is, and where its time went.
    answered: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    batch_rows: int = 0


def linked_job(link: Link, ring: Ring, models: Mapping[int, ModelFacts]) -> LinkedJob:
    """The job behind a record; raises `MalformedRecord` for one that points at what is not there."""
    if ring.model not in models or ring.dtype >= len(DTYPES):
        raise MalformedRecord(f"model {ring.model}, dtype {ring.dtype}")
    facts, dtype = models[ring.model], DTYPES[ring.dtype]
    row, answer = facts.manifest.input.shape, facts.shape_of(ring.wanted)
    if answer is None:
        raise MalformedRecord(f"{ring.wanted} of model {ring.model}, which has none")
    behind = slots_for(ring.rows, row_bytes(row, dtype))
    slots = behind + slots_for(ring.rows, row_bytes(answer, "float32"))
    if not link.arena.holds(ring.first_slot, slots):
        raise MalformedRecord(f"{ring.rows} rows from slot {ring.first_slot} on")
    return LinkedJob(
        lane=Lane(ring.model, dtype, ring.wanted),
        rows=ring.rows,
        arrived=ring.arrived,
        deadline=ring.deadline,
        link=link,
        ticket=ring.ticket,
        client=ring.client,
        inputs=link.arena.array(ring.first_slot, [ring.rows, *row], dtype),
        outputs=link.arena.array(ring.first_slot + behind, [ring.rows, *answer], "float32"),
    )
