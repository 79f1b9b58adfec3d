"""The command line, as a user and as a script call it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin

import pytest

from service import __version__
from service.settings import Settings

from .server import PATIENCE, ROOT, environment

pytestmark = pytest.mark.e2e

NORMS = ["bn1", "bn2", "bn3", "bn4", "bn5"]
COMMANDS = ["serve", "models", "layers", "fold", "train-digits"]
SAYING_WHAT_IT_IMPORTED = """
import sys
from service.cli import main
try:
    status = main()
except SystemExit as end:
    status = end.code
print("torch" in sys.modules, file=sys.stderr)
sys.exit(status)
"""


def ran(*arguments: str, program: tuple[str, ...] = ("-m", "service"), **settings: Any) -> Any:
    """The finished command, its output as text."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env=environment(**settings) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def printed(*arguments: str, **settings: Any) -> str:
    finished = ran(*arguments, **settings)
    assert finished.returncode == 0, finished.stderr
    output: str = finished.stdout
    return output


def assert_fails(finished: Any, *, saying: str, status: int = 1) -> None:
    assert finished.returncode == status, finished.stderr
    assert finished.stdout == ""
    assert saying in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["serve", "--help"], ["models"], ["models", "--json"]]
)
def test_what_needs_no_network_does_not_import_torch(arguments: list[str]) -> None:
    finished = ran(*arguments, program=("-c", SAYING_WHAT_IT_IMPORTED))
    assert finished.returncode == 0
    assert finished.stdout
    assert finished.stderr.splitlines()[-1] == "False"


def test_version_and_help_say_what_there_is() -> None:
    assert printed("--version") == f"foldserve {__version__}\n"
    help_text = printed("--help")
    assert all(command in help_text for command in COMMANDS)


def test_help_of_serve_says_every_setting() -> None:
    help_text = " ".join(printed("serve", "--help").split())
    fields = {name: field for name, field in Settings.model_fields.items() if name != "keys"}
    assert "--keys " not in help_text, "all may see the arguments of a command"
    for name, field in fields.items():
        flag = f"--{name.replace('_', '-')}"
        is_choice = get_origin(field.annotation) is Literal
        value = f"{{{','.join(get_args(field.annotation))}}}" if is_choice else "VALUE"
        assert (
            f"{flag}, {flag.replace('--', '--no-', 1)}" if field.annotation is bool else f"{flag} {value}"
        ) in help_text
        assert str(field.description) in help_text


def test_models_lists_the_store() -> None:
    table = printed("models")
    assert all(word in table for word in ("digits", "grayscale 1x8x8", "classification", "float32"))
    (model,) = json.loads(printed("models", "--json"))
    assert (model["model"], model["version"]) == ("digits", 1)
    assert model["manifest"]["architecture"] == "digits"


def test_layers_shows_every_norm() -> None:
    table = printed("layers", "digits")
    assert all(name in table for name in (*NORMS, "into_producer conv1"))
    layers = json.loads(printed("layers", "digits/1", "--json"))
    assert [layer["name"] for layer in layers] == NORMS
    assert all(layer["running_var"]["min"] > 0 for layer in layers)


def test_fold_says_what_became_of_every_norm() -> None:
    table = printed("fold", "digits")
    assert all(name in table for name in NORMS)
    assert "5 of 5 norms folded, 0 kept" in table
    report = json.loads(printed("fold", "digits", "--json", threads=1))
    assert set(report) >= {"model", "norms", "folded", "kept", "layers", "parity", "seconds"}
    assert (report["model"], report["norms"], report["folded"], report["kept"]) == ("digits", 5, 5, 0)
    assert [layer["name"] for layer in report["layers"]] == NORMS
    assert set(report["layers"][0]) >= {"name", "outcome", "partner", "reason"}
    assert report["parity"]["max_relative_error"] < 1e-5
    assert set(report["parity"]) >= {"max_relative_error", "unfolded_relative_error", "top1_agreement"}


@pytest.mark.parametrize(
    ("model", "saying"),
    [
        ("letters", "the store has no model 'letters'"),
        ("../digits", "no model '..'"),
        ("digits/9", "model 'digits' has no version"),
        ("digits/one", "one"),
        ("digits/", "version"),
        ("digits/1/1", "1/1"),
    ],
)
def test_unknown_model_is_an_error(model: str, saying: str) -> None:
    assert_fails(ran("fold", model), saying=saying)
    if model == "letters":
        assert_fails(ran("layers", model), saying=saying)


def test_wrong_use_is_told_with_the_usage() -> None:
    assert_fails(ran(), saying="usage:", status=2)
    assert_fails(ran("serve", "--nonsense"), saying="--nonsense", status=2)
    assert_fails(ran("models", nonsense=1), saying="FOLDSERVE_NONSENSE")
    assert_fails(ran("models", "--model-store", "/does/not/exist"), saying="the model store")
    assert_fails(ran("fold", "digits", "--device", "cuda:99"), saying="cuda:99")


def test_training_does_not_replace_what_is_there() -> None:
    assert_fails(ran("train-digits"), saying="digits/1 is in the store already")
