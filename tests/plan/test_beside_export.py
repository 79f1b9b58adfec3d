"""A plan answers while another thread captures networks: torch's flag is that thread's alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from service.graph.capture import capture
from service.graph.solitude import solitary
from service.plan.interpreter import interpreted
from tests.engine.peer import HANG_S

from .lowered import inputs, lowered

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

_CAPTURES = 3


class Doubled(nn.Module):
    """Holds arithmetic on sizes, for which the interpreter has no words."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0] * 2, -1).reshape(x.shape[0], -1)


NETS = {
    "the interpreter": nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)),
    "Python": nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), Doubled(), nn.Linear(128, 3)),
}


class Exporter:
    """Captures networks on a thread of its own until it has captured enough beside others' work."""

    def __init__(self) -> None:
        self.captured = 0
        self.failure: Exception | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        net = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(8))).eval()
        try:
            while not self._is_over.is_set():
                capture(net, inputs(2, 4, 6, 6))
                self.captured += 1
        except Exception as failure:  # noqa: BLE001 - a test looks at it
            self.failure = failure

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()
        assert self.failure is None


def is_in_python(module: fx.GraphModule) -> bool:
    run: Callable[[torch.Tensor], torch.Tensor] = interpreted(module)
    return run == module.forward


@pytest.mark.parametrize("by", NETS)
def test_a_plan_answers_rightly_while_another_thread_exports(by: str) -> None:
    torch.manual_seed(0)
    plan, rows = lowered(NETS[by].eval(), inputs(4, 6, 6)), inputs(3, 4, 6, 6)
    assert is_in_python(plan.programs[-1].module) == (by == "Python")
    wanted, answers = plan(rows).clone(), 0
    with Exporter() as exporter:
        while exporter.captured < _CAPTURES and exporter.failure is None:
            assert torch.equal(plan(rows), wanted)
            answers += 1
    assert answers > _CAPTURES


@pytest.mark.parametrize("by", NETS)
def test_a_plan_calls_no_module(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While torch traces, it puts a call of its own in that one's place, for every thread."""
    plan = lowered(NETS[by].eval(), inputs(4, 6, 6))

    def trace(*_: object) -> None:
        raise AssertionError("that is another thread's tracer")

    monkeypatch.setattr(nn.Module, "__call__", trace)
    assert plan(inputs(3, 4, 6, 6)).shape == (3, 3)


def test_a_capture_beside_a_plan_is_the_same_as_one_alone() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    alone = capture(net, inputs(2, 4, 6, 6))
    plan, rows = lowered(NETS["the interpreter"].eval(), inputs(4, 6, 6)), inputs(3, 4, 6, 6)
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            plan(rows)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    beside = capture(net, inputs(2, 4, 6, 6))
    is_over.set()
    thread.join(HANG_S)
    assert beside.module.code == alone.module.code


# What is told of the flag


@pytest.fixture
def exporting(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch exported, for every thread."""
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)


def told_elsewhere() -> bool:
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(torch.compiler.is_exporting()))
    thread.start()
    thread.join(HANG_S)
    return told[0]


def test_only_the_thread_that_exports_is_told_so(exporting: None) -> None:
    with solitary():
        assert torch.compiler.is_exporting()
        assert not told_elsewhere()
    assert told_elsewhere()


def test_what_stood_there_stands_there_again_whatever_the_export_ends_in() -> None:
    before = torch.compiler.is_exporting
    with pytest.raises(ZeroDivisionError), solitary():
        _ = 1 / (torch.compiler.is_exporting is before)
    assert torch.compiler.is_exporting is before
