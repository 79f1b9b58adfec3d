"""The command line: what it takes, what it prints where, and how it exits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from service import __version__, cli
from service.engine.loading import load
from service.settings import PREFIX, Settings
from service.store import manifest as manifests
from service.store.model_store import ModelStore
from service.training.training import Trained

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SHIPPED = ["--model-store", str(ROOT / "model_store")]
QUICKLY = [*SHIPPED, "--device", "cpu", "--threads", "1"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings from around, and a terminal wide enough that no line is broken."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a command."""
    try:
        status = cli.main(argv)
    except SystemExit as ended:
        status = int(str(ended.code or 0))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (1, "")
    assert err.startswith("foldserve: ")
    assert "Traceback" not in err
    return err.removeprefix("foldserve: ").rstrip("\n")


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


# Arguments


def test_help_says_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for command in ("serve", "models", "layers", "fold", "train-digits"):
        assert command in out


def test_the_help_of_serve_says_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "serve", "--help")
    assert status == 0
    words = " ".join(out.split())
    for name, field in Settings.model_fields.items():
        is_shown = name != "keys"  # all may see the arguments of a command
        assert bool(re.search(rf"--{name.replace('_', '-')}[ ,]", out)) == is_shown
        assert (str(field.description) in words) == is_shown
    assert "FOLDSERVE_NAME" in words


@pytest.mark.parametrize("flag", ["--keys", "--drift-th", "--show"])
def test_a_flag_is_known_by_its_whole_name_only(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    """`--keys`, which there is not, would else be `--keys-file`, and a later setting another one's name."""
    status, out, err = run(capsys, "serve", flag, "1")
    assert (status, out) == (2, "")
    assert f"unrecognized arguments: {flag}" in err


def test_the_help_of_serve_says_what_a_setting_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(run(capsys, "serve", "--help")[1].split())
    assert "--model-control {none,poll,explicit} " in words
    assert "--log-level {debug,info,warning,error} " in words
    assert "--port VALUE " in words


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"foldserve {__version__}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["unknown"],
        ["serve", "--colour", "red"],
        ["layers"],
        ["fold", "a", "b"],
        ["models", "--port", "1"],
        ["train-digits", "--seed", "x"],
    ],
)
def test_a_wrong_command_line_exits_with_2_and_shows_the_usage(
    capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert err.startswith("usage: foldserve")


def test_a_wrong_setting_exits_with_1_and_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(capsys, "serve", "--port", "http").startswith("FOLDSERVE_PORT: ")
    monkeypatch.setenv("FOLDSERVE_PROT", "1")
    assert refused(capsys, "models", *SHIPPED) == "unknown setting in the environment: FOLDSERVE_PROT"


def test_flags_override_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOLDSERVE_MODEL_STORE", str(tmp_path))
    assert strict_json(run(capsys, "models", "--json")[1]) == []
    assert len(strict_json(run(capsys, "models", "--json", *SHIPPED)[1])) == 1


def test_a_setting_that_is_true_or_false_is_a_flag_without_a_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen: list[bool] = []

    def served(settings: Settings, _: dict[str, Any]) -> int:
        chosen.append(settings.tune)
        return 0

    monkeypatch.setattr(cli, "_serve", served)
    monkeypatch.setenv("FOLDSERVE_TUNE", "true")
    for flags in ([], ["--tune"], ["--no-tune"]):
        assert cli.main(["serve", *flags]) == 0
    assert chosen == [True, True, False]


def test_an_interrupt_exits_as_the_shell_expects(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_models", interrupted)
    assert run(capsys, "models") == (130, "", "")


def test_an_error_is_printed_as_it_is_whatever_its_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "[bold]a[/]"
    assert refused(capsys, "layers", odd, *SHIPPED) == (
        f"the store has no model {odd.partition('/')[0]!r}; it has digits"
    )


def test_a_model_that_is_not_there_is_told_with_those_that_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert refused(capsys, "layers", "digit", *SHIPPED) == "the store has no model 'digit'; it has digits"
    nothing = refused(capsys, "layers", "digit", "--model-store", str(tmp_path))
    assert nothing == "the store has no model 'digit'; it has none"


# models


def test_models_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "models", *SHIPPED)
    assert (status, err) == (0, "")
    head, row = out.splitlines()
    assert head.split() == ["model", "version", "architecture", "input", "task", "precision"]
    assert row.split() == ["digits", "1", "digits", "grayscale", "1x8x8", "classification", "float32"]


def test_models_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "models", "--json", *SHIPPED)
    assert (status, err) == (0, "")
    (only,) = strict_json(out)
    manifest = manifests.read(ROOT / "model_store" / "digits" / "1" / "model.toml")
    assert only == {"model": "digits", "version": 1, "manifest": manifest.model_dump()}


def test_models_prints_json_even_of_a_loss_that_is_not_a_number(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "model_store" / "digits", tmp_path / "digits")
    with (tmp_path / "digits" / "1" / "model.toml").open("a") as file:
        file.write("loss = nan\n")
    (only,) = strict_json(run(capsys, "models", "--json", "--model-store", str(tmp_path))[1])
    assert only["manifest"]["provenance"]["held_out"]["loss"] is None


def test_models_of_no_store_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert refused(capsys, "models", "--model-store", missing).endswith(
        " is not a folder; --model-store names another"
    )


def test_models_names_a_broken_manifest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    assert refused(capsys, "models", "--model-store", str(tmp_path)) == "a/1/model.toml is missing"


# layers and fold


@pytest.mark.usefixtures("threads_as_before")
def test_layers_prints_one_norm_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "layers", "digits/1", *QUICKLY)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["norm", "channels", "eps", "mean"]
    assert [line.split()[0] for line in lines[1:]] == ["bn1", "bn2", "bn3", "bn4", "bn5"]


@pytest.mark.usefixtures("threads_as_before")
def test_layers_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "layers", "digits", "--json", *QUICKLY)
    layers = strict_json(out)
    assert status == 0
    assert [(layer["name"], layer["num_features"]) for layer in layers] == [
        ("bn1", 32),
        ("bn2", 32),
        ("bn3", 64),
        ("bn4", 64),
        ("bn5", 64),
    ]
    assert set(layers[0]["running_mean"]) == {"min", "max", "mean", "std"}


@pytest.mark.usefixtures("threads_as_before")
def test_fold_prints_what_became_of_every_norm_and_the_proof(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "fold", "digits", *QUICKLY)
    assert status == 0
    assert "5 of 5 norms folded, 0 kept." in out
    assert out.count("into_producer") == 5


@pytest.mark.usefixtures("threads_as_before")
def test_fold_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "fold", "digits", "--json", *QUICKLY)
    report = strict_json(out)
    assert status == 0
    assert list(report) == ["model", "norms", "folded", "kept", "layers", "parity", "golden", "seconds"]
    assert (report["model"], report["norms"], report["folded"], report["kept"]) == ("digits", 5, 5, 0)
    assert set(report["layers"][0]) == {"name", "outcome", "partner", "reason"}
    assert {"max_relative_error", "unfolded_relative_error", "top1_agreement"} <= set(report["parity"])


@pytest.mark.parametrize(("own", "spins"), [({}, "5000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_threads_that_wait_sleep_soon_unless_the_environment_says_otherwise(
    own: dict[str, str], spins: str
) -> None:
    code = "import os; from service import cli; cli.main(['models']); print(os.environ.get('GOMP_SPINCOUNT'))"
    waiting = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    environment = {name: value for name, value in os.environ.items() if name not in waiting}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | own,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == spins


@pytest.mark.usefixtures("threads_as_before")
def test_fold_shows_the_plan_where_it_is_asked_to(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "fold", "digits", "--plan", *QUICKLY)
    assert status == 0
    first = next(line for line in out.splitlines() if line.strip().startswith("conv1"))
    assert first.split()[:2] == ["conv1", "conv2d"]
    assert "32x8x8" in first
    assert "5 of 5 norms folded" in out


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("given", [QUICKLY, ["--random-stats", "0"]], ids=["stored", "dry run"])
def test_the_plan_is_in_the_json_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    _, out, _ = run(capsys, "fold", "digits", "--plan", "--json", *given)
    plan = strict_json(out)["plan"]
    assert [step["name"] for step in plan if step["op"] == "conv2d"] == ["conv1", "conv2", "conv3", "conv4"]
    assert {tuple(step) for step in plan} == {("name", "op", "epilogue", "shape", "backend")}
    assert plan[-1]["shape"] == [10]


@pytest.mark.usefixtures("threads_as_before")
def test_fold_stores_the_reference_answers_and_then_uses_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = tmp_path / "digits" / "1"
    shutil.copytree(ROOT / "model_store" / "digits" / "1", version)
    (version / "reference.safetensors").unlink()
    there = ["--model-store", str(tmp_path), "--device", "cpu", "--threads", "1"]
    status, out, err = run(capsys, "fold", "digits", "--write-reference", "--json", *there)
    assert (status, strict_json(out)["folded"]) == (0, 5)
    assert "wrote digits/1/reference.safetensors" in err
    assert load(ModelStore(tmp_path).open("digits"), torch.device("cpu")).card.facts.reference == "stored"


def test_a_dry_run_has_no_reference_to_store(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "fold", "digits", "--random-stats", "0", "--write-reference", *SHIPPED)
    assert said == "--write-reference is for a model of the store, not for a dry run"


def test_the_shipped_reference_answers_are_those_of_the_shipped_model() -> None:
    shipped = ModelStore(ROOT / "model_store").open("digits", 1)
    assert load(shipped, torch.device("cpu")).card.facts.reference == "stored"


@pytest.mark.parametrize("command", ["layers", "fold"])
@pytest.mark.parametrize("model", ["other", "digits/2", "digits/0", "../digits", ""])
def test_a_model_that_is_not_in_the_store_is_an_error(
    capsys: pytest.CaptureFixture[str], command: str, model: str
) -> None:
    said = refused(capsys, command, model, *SHIPPED)
    assert "has no model" in said or "has no version" in said


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("version", ["latest", "1/2", "²"])
def test_a_version_that_is_no_number_is_an_error_and_not_the_highest(
    capsys: pytest.CaptureFixture[str], version: str
) -> None:
    refused(capsys, "fold", f"digits/{version}", *QUICKLY)


def test_a_device_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "device 'tpu' is none of" in refused(capsys, "fold", "digits", "--device", "tpu", *SHIPPED)


# serve and train-digits, where they refuse


def test_serve_without_a_store_exits_with_1_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", "--port", "0", "--model-store", str(tmp_path / "missing")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not a folder; --model-store names another" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("address", [["--host", "256.256.256.256"], ["--host", "203.0.113.1"]])
def test_serve_on_an_address_that_is_not_ours_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, address: list[str]
) -> None:
    monkeypatch.setattr("service.telemetry.set_up_logs", lambda *_: None)
    status, out, err = run(capsys, "serve", "--port", "0", *address, *SHIPPED)
    assert (status, out) == (1, "")
    assert f"foldserve: cannot listen on {address[1]}:0" in err


def test_training_does_not_replace_a_version_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    *_, said = run(capsys, "train-digits", *SHIPPED)
    assert said.splitlines()[-1] == "foldserve: digits/1 is in the store already"


@pytest.mark.parametrize("epochs", ["0", "-1"])
def test_training_for_no_epochs_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: str
) -> None:
    asked: list[int] = []

    def train(*_: Any, **arguments: Any) -> None:
        from service.errors import InvalidConfiguration

        asked.append(arguments["epochs"])
        raise InvalidConfiguration("this test does not train")

    monkeypatch.setattr("service.training.training.train_digits", train)
    run(capsys, "train-digits", "--epochs", epochs, "--model-store", str(tmp_path))
    assert asked == [int(epochs)]


@pytest.mark.usefixtures("threads_as_before")
def test_what_was_trained_has_its_reference_answers_stored(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(store: ModelStore, *, name: str, version: int, **_: Any) -> Trained:
        folder = store.folder / name / str(version)
        shutil.copytree(ROOT / "model_store" / "digits" / "1", folder)
        (folder / "reference.safetensors").unlink()
        return Trained(folder, store.open(name, version).manifest, 716, 719)

    monkeypatch.setattr("service.training.training.train_digits", train)
    trained = ["--name", "mine", "--model-version", "3", "--model-store", str(tmp_path)]
    status, out, _ = run(capsys, "train-digits", *trained)
    assert (status, out.splitlines()[-1].rpartition("; ")[2]) == (0, "wrote mine/3")
    assert (tmp_path / "mine" / "3" / "reference.safetensors").is_file()


def test_fold_of_an_architecture_with_random_statistics_needs_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "none")
    status, printed, _ = run(
        capsys, "fold", "digits", "--random-stats", "0", "--json", "--model-store", nowhere
    )
    report = strict_json(printed)
    assert (status, report["model"]) == (0, "digits")
    assert (report["norms"], report["folded"], report["kept"]) == (5, 5, 0)
    assert set(report) == {"model", "norms", "folded", "kept", "layers", "parity", "golden", "seconds"}
    assert report["parity"]["max_relative_error"] < 1e-5


@pytest.mark.parametrize("shape", ["3,224", "0,8,8", "a,b,c", "3,224,224,1", "-1,8,8"])
def test_fold_takes_three_numbers_for_its_input(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fold", "digits", "--random-stats", "0", f"--input={shape}"])
    assert "three numbers, such as 3,224,224" in capsys.readouterr().err
