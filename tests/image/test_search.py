"""The search for secrets finds every kind that it names, and nothing in what is usually installed."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .search import CONTENTS, NAMES, OF_CODE, found, told

if TYPE_CHECKING:
    from collections.abc import Callable

# Put together here, so that nobody's search finds them in this file.
EXAMPLES = {
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIEow" * 12 + "\n",
    "a key of AWS": "aws_access_key_id = AKIA" + "IOSFODNN7EXAMPLE",
    "a token of GitHub": "token: ghp_" + "a1" * 18,
    "a token of GitLab": "glpat-" + "x" * 20,
    "a token of PyPI": "pypi-AgEIcHlwaS5vcmc" + "x" * 30,
    "a token of Hugging Face": "hf_" + "a" * 34,
    "a token of Slack": "xoxb-" + "1" * 10 + "-" + "a" * 12,
    "a key of foldserve": "inference:shop:" + "2f1c9a7e40d84c1b9d0e",
}


@pytest.mark.parametrize("reason", CONTENTS)
def test_each_kind_of_secret_is_found_in_a_file_of_any_name(tmp_path: Path, reason: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "settings.py").write_text(
        f"first line\n{EXAMPLES[reason]}\nlast line\n", encoding="utf-8"
    )
    assert list(found(tmp_path, set())) == [(tmp_path / "deep" / "settings.py", reason)]


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_found_whatever_it_holds(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    (tmp_path / "home").mkdir()
    make(tmp_path / "home" / name)
    assert list(found(tmp_path, set())) == [(tmp_path / "home" / name, NAMES[name])]
    assert list(found(tmp_path, {tmp_path / "home"})) == []


def test_an_address_with_a_password_is_found_where_it_is_no_example(tmp_path: Path) -> None:
    text = "index-url = https://robot:" + "secret@packages.example/simple\n"
    for name in ("index.conf", *sorted(f"x{suffix}" for suffix in OF_CODE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    hits = {path.name for path, _ in found(tmp_path, set())}
    assert "index.conf" in hits
    assert not hits & {f"x{suffix}" for suffix in OF_CODE - {"METADATA"}}


def test_a_step_of_a_build_and_a_variable_are_looked_at_alike() -> None:
    assert told(b"FOLDSERVE_KEYS=admin:ops:" + b"c0ffee5b6c1d4e2f9a83") == ["a key of foldserve"]
    assert told(b"RUN pip install --index-url $TORCH_INDEX torch") == []


def test_what_is_installed_here_has_nothing_that_looks_like_a_secret() -> None:
    """Or it would be found in every image."""
    site = Path(sysconfig.get_path("purelib"))
    for package in ("fastapi", "starlette", "uvicorn", "PIL", "numpy", "pydantic", "safetensors", "rich"):
        assert list(found(site / package, set())) == []
