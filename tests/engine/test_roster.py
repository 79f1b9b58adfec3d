"""The roster: what the engine said last is what later workers are told."""

from __future__ import annotations

import os

import numpy as np

from service.engine import board as boards
from service.engine import card as cards
from service.engine.card import ModelCard
from service.engine.control import Kind, Message
from service.engine.roster import Roster
from service.telemetry import Telemetry
from tests.engine.cards import facts
from tests.engine.peer import open_descriptors


def test_a_card_that_is_said_again_takes_the_place_of_the_one_before() -> None:
    descriptor = boards.create(1)
    roster = Roster(boards.Board(descriptor), 4, Telemetry(), lambda: None)
    os.close(descriptor)
    before = open_descriptors()
    for number in range(3):
        told = ModelCard(facts(), {}, {"mean": np.full(2, float(number))})
        roster._hear_engine(Message(Kind.CARD, 0, descriptors=(cards.write(told),)))
    assert open_descriptors() == before + 1
    (card,) = roster.cards()
    assert card.baseline["mean"].tolist() == [2.0, 2.0]
    roster.strike_engine()
    assert open_descriptors() == before
