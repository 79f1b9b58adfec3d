"""What the documentation shows as an answer is what the service answers."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server import Service

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "inspection.md"
EXAMPLES = re.findall(r"```console\n\$ (curl .*)\n((?:.*\n)+?)```", PAGE.read_text(encoding="utf-8"))


def without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text) + "\n"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("command", "expected"), EXAMPLES)
def test_an_example_is_answered_as_shown(service: Service, command: str, expected: str) -> None:
    _, _, *headers, address = shlex.split(command)
    asked = dict(header.split(": ") for header in headers if header != "-H")
    answer = service.get(address.removeprefix("http://127.0.0.1:8000"), **asked)
    assert answer.status_code == 200
    want, got = without_spaces(expected), without_spaces(answer.text)
    assert doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS), f"{got}\nis not\n{want}"
