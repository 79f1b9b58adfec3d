"""`foldserve serve --show-config` prints what is in force and where it comes from, and starts nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service import cli
from service.settings import PREFIX, Settings, sources

ROOT = Path(__file__).parents[1]
SECRET = "a-secret-of-the-shop-0123456789"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from around, and a terminal wide enough that no line is broken."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")


def shown(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert cli.main(["serve", "--show-config=json", *flags]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return {row["setting"]: row for row in json.loads(printed.out)}


def test_every_setting_is_shown_in_the_order_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shown(capsys)
    assert list(rows) == list(Settings.model_fields)
    assert {row["source"] for row in rows.values()} == {"default"}
    assert [name for name, row in rows.items() if row["value"] != row["default"]] == []


def test_a_value_is_shown_with_where_it_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOLDSERVE_PORT", "9000")
    monkeypatch.setenv("foldserve_max_batch", "4")  # names are read in any case
    monkeypatch.setenv("FOLDSERVE_WORKERS", "2")
    rows = shown(capsys, "--workers", "3", "--tune", "--max-body-mb", "0.5", "--model-store", "/srv/[models]")
    found = {name: (row["value"], row["source"]) for name, row in rows.items() if row["source"] != "default"}
    assert found == {
        "port": (9000, "environment"),
        "max_batch": (4, "environment"),
        "workers": (3, "option"),
        "tune": (True, "option"),
        "max_body_mb": (0.5, "option"),
        "model_store": ("/srv/[models]", "option"),
    }
    assert rows["port"]["variable"] == "FOLDSERVE_PORT"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_is_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("FOLDSERVE_KEYS", f"admin:ops:{SECRET}")
    assert cli.main(["serve", f"--show-config={form}"]) == 0
    printed = "".join(capsys.readouterr())
    assert SECRET not in printed
    assert "(set, not shown)" in printed


def test_every_setting_that_may_not_be_an_argument_is_a_secret() -> None:
    """What all may see as an argument of a process is no secret, and the other way round."""
    assert {name for name, field in Settings.model_fields.items() if not field.repr} == {"keys"}


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--show-config", "--port", "9001", "--model-store", "/srv/[models]"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ ?port +9001 +option +Port", printed, re.MULTILINE)
    assert re.search(r"^ ?model_store +/srv/\[models\] +option ", printed, re.MULTILINE)
    assert len(printed.splitlines()) == 1 + len(Settings.model_fields)


def test_a_wrong_setting_is_named_and_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--show-config", "--port", "x"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "FOLDSERVE_PORT" in printed.err


def test_nothing_is_loaded_for_it() -> None:
    source = "\n".join(
        [
            "import sys",
            "from service import cli",
            "status = cli.main(['serve', '--show-config', '--model-store', '/nowhere'])",
            "print(status, sorted({'torch', 'service.app', 'service.web.worker'} & set(sys.modules)))",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_sources_say_what_read_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_PORT", "1")
    monkeypatch.setenv("FOLDSERVE_HOST", "x")
    found = sources({"port": "2"})
    assert (found["port"], found["host"], found["workers"]) == ("option", "environment", "default")


LIMITS = {
    "body": ("max_body_mb", 32.0),
    "inflated body": ("max_inflated_mb", 0.0),
    "pixels": ("max_pixels", 64_000_000),
    "rows of a request": ("max_request_rows", 512),
    "queue": ("max_waiting_rows", 2048),
    "deadline": ("timeout_ms", 30_000),
    "reading headers": ("header_timeout_s", 10.0),
    "reading a body": ("body_timeout_s", 20.0),
    "idle connections": ("idle_timeout_s", 75.0),
    "connections": ("max_connections", 4096),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_every_limit_is_a_setting_with_a_safe_default_and_is_shown(
    capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    name, default = LIMITS[limit]
    row = shown(capsys)[name]
    assert (row["value"], row["default"]) == (default, default)
