"""Settings come from the environment or from flags, and nothing that is unknown or wrong is passed over."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from service import settings
from service.batching.policy import Limits
from service.errors import InvalidConfiguration
from service.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith(settings.PREFIX):
            monkeypatch.delenv(name)


def complaint(**flags: Any) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        settings.read(flags)
    return str(caught.value)


def test_without_anything_the_defaults_hold_and_are_safe() -> None:
    chosen = settings.read({})
    assert chosen == Settings()
    assert (chosen.host, chosen.port) == ("127.0.0.1", 8000)
    assert chosen.limits == Limits(max_waiting_rows=2048, max_delay_s=0.0)
    assert chosen.max_body_bytes == 32 * 1024 * 1024
    assert chosen.model_names == []


def test_the_environment_is_read_and_its_text_becomes_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_PORT", "0")
    monkeypatch.setenv("FOLDSERVE_MAX_DELAY_MS", "2.5")
    monkeypatch.setenv("FOLDSERVE_MODEL_STORE", "/srv/models")
    chosen = settings.read({})
    assert (chosen.port, str(chosen.model_store)) == (0, "/srv/models")
    assert chosen.limits.max_delay_s == 0.0025


def test_a_flag_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_PORT", "9000")
    monkeypatch.setenv("FOLDSERVE_DEVICE", "cpu")
    chosen = settings.read({"port": "9001"})
    assert (chosen.port, chosen.device) == (9001, "cpu")


@pytest.mark.parametrize("name", ["FOLDSERVE_PROT", "FOLDSERVE_", "FOLDSERVE_LIMITS", "foldserve_prot"])
def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert complaint() == f"unknown setting in the environment: {name}"


def test_every_unknown_variable_is_named_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FOLDSERVE_Z", "FOLDSERVE_A", "FOLDSERVE_PORT"):
        monkeypatch.setenv(name, "1")
    assert complaint() == "unknown setting in the environment: FOLDSERVE_A, FOLDSERVE_Z"


def test_variables_of_others_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVER_PORT", "1")
    monkeypatch.setenv("MY_FOLDSERVE_PORT", "1")
    assert settings.read({}).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "http"),
        ("port", "-1"),
        ("port", "65536"),
        ("port", ""),
        ("port", "80.5"),
        ("versions", "newest"),
        ("precision", "int8"),
        ("threads", "-1"),
        ("max_batch", "4097"),
        ("max_delay_ms", "-0.1"),
        ("max_delay_ms", "nan"),
        ("max_delay_ms", "inf"),
        ("max_waiting_rows", "0"),
        ("max_request_rows", "0"),
        ("max_body_mb", "0"),
        ("max_body_mb", "nan"),
        ("max_pixels", "0"),
        ("max_inflated_mb", "-1"),
        ("max_connections", "0"),
        ("access_log", "maybe"),
        ("timeout_ms", "0"),
        ("timeout_ms", "3600001"),
        ("header_timeout_s", "0"),
        ("header_timeout_s", "inf"),
        ("body_timeout_s", "-1"),
        ("body_timeout_s", "nan"),
        ("idle_timeout_s", "0"),
        ("drain_timeout_s", "0"),
        ("log_level", "INFO"),
        ("log_format", "xml"),
    ],
)
@pytest.mark.parametrize("way", ["flag", "environment"])
def test_a_wrong_value_is_refused_by_the_variable_s_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, way: str
) -> None:
    variable = f"FOLDSERVE_{name.upper()}"
    if way == "environment":
        monkeypatch.setenv(variable, value)
    said = complaint(**({name: value} if way == "flag" else {}))
    assert said.startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("versions", "newest", "latest, latest:N, all, or numbers such as 1,4"),
        ("allowed_hosts", "a b", "separated by commas"),
    ],
)
def test_a_value_of_a_wrong_form_is_told_the_form_in_words(name: str, value: str, said: str) -> None:
    complained = complaint(**{name: value})
    assert said in complained
    assert "pattern" not in complained


def test_every_wrong_value_is_named_at_once() -> None:
    said = complaint(port="x", timeout_ms=0)
    assert [part.partition(":")[0] for part in said.split("; ")] == ["FOLDSERVE_PORT", "FOLDSERVE_TIMEOUT_MS"]


def test_a_flag_that_is_no_setting_is_refused() -> None:
    assert complaint(colour="red").startswith("FOLDSERVE_COLOUR: ")


def test_settings_cannot_be_changed() -> None:
    chosen = settings.read({})
    for name in Settings.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(chosen, name, getattr(chosen, name))


@pytest.mark.parametrize(
    ("given", "names"),
    [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), (" a , b ,", ["a", "b"]), (",,", [])],
)
def test_names_of_models_are_separated_by_commas(given: str, names: list[str]) -> None:
    assert settings.read({"models": given}).model_names == names


def test_what_a_body_is_inflated_to_has_the_limit_of_a_body_unless_it_has_its_own() -> None:
    assert settings.read({"max_body_mb": "0.5"}).max_inflated_bytes == 524288
    assert settings.read({"max_body_mb": "0.5", "max_inflated_mb": "2"}).max_inflated_bytes == 2097152


@pytest.mark.parametrize(("mb", "size"), [("1", 1048576), ("0.5", 524288), ("4096", 4294967296)])
def test_a_body_is_measured_in_mebibytes(mb: str, size: int) -> None:
    assert settings.read({"max_body_mb": mb}).max_body_bytes == size


def test_every_default_is_itself_allowed_and_described() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert settings.read(defaults) == Settings()
    assert not any(isinstance(value, float) and math.isnan(value) for value in defaults.values())
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
