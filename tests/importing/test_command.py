"""The command line of an import: what is said, in which order, and what is refused before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from service import cli
from service.settings import PREFIX
from service.store.model_store import ModelStore

from .checkpoints import behind, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAY = ["--mean", "0.3", "--std", "0.4"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings from around, in a folder of its own, and the number of threads as it was."""
    for name in os.environ:
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def checkpoint(tmp_path: Path) -> Path:
    torch.save({"state_dict": behind("module.", weights_of(num_classes=3))}, tmp_path / "run.pth")
    (tmp_path / "labels.txt").write_text("cat\ndog\nfish\n", encoding="utf-8")
    return tmp_path / "run.pth"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of an import into the store `store`."""
    try:
        status = cli.main(["import", *argv, "--model-store", "store", "--threads", "1", "--device", "cpu"])
    except SystemExit as ended:
        status = int(str(ended.code or 0))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    status, out, err = run(capsys, *argv)
    assert (status, out) == (1, "")
    assert not list(Path("store").rglob("*"))
    return err.removeprefix("foldserve: ").rstrip("\n")


def test_one_command_brings_a_checkpoint_into_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["--labels", "labels.txt"]
    status, out, err = run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *GRAY, *labels)
    assert (status, err) == (0, "")
    stored = ModelStore(Path("store")).open("mine", 1)
    assert stored.labels() == ("cat", "dog", "fish")
    assert stored.manifest.options == {"num_classes": 3}
    assert (stored.manifest.input.mean, stored.manifest.input.std) == ([0.3], [0.4])
    lines = out.splitlines()
    assert lines[:3] == [
        "- The weights are those in 'state_dict' of the checkpoint.",
        "- The prefix 'module.' was removed from the names of the weights.",
        "- num_classes is 3, the size of the checkpoint's head.",
    ]
    assert lines[-2].startswith("5 of 5 norms folded, 0 kept. Relative error ")
    assert lines[-1] == "wrote mine/1; foldserve serve serves it"


def test_what_the_user_says_is_what_the_manifest_says(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--input", "1,8,8", "--resize", "20", "--interpolation", "nearest", "--version", "4"]
    assert run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *GRAY, *said)[0] == 0
    row = ModelStore(Path("store")).open("mine", 4).manifest.input
    assert (row.shape, row.resize, row.interpolation) == ([1, 8, 8], 20, "nearest")


def test_resize_none_squeezes_images_to_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    said = ["--input", "1,8,8", "--resize", "none"]
    assert run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *GRAY, *said)[0] == 0
    assert ModelStore(Path("store")).open("mine").manifest.input.resize is None


def test_options_are_numbers_words_and_truths(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--options", "num_classes=3"]
    assert run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *GRAY, *options)[0] == 0
    assert ModelStore(Path("store")).open("mine").manifest.options == {"num_classes": 3}
    for text in ("width=0.5", "fast=true", "kind=wide"):
        said = refused_again(capsys, "--options", text)
        assert text.partition("=")[0] in said


def refused_again(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    status, _, err = run(capsys, "digits", "--weights", "run.pth", "--name", "other", *GRAY, *more)
    assert status == 1
    assert ModelStore(Path("store")).names() == ["mine"]
    return err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "say one of ARCHITECTURE, --callable and --exported"),
        (("digits", "--callable", "a:b"), "say one of ARCHITECTURE, --callable and --exported"),
        (("digits",), "an ARCHITECTURE needs the file of its weights: --weights FILE"),
        (
            ("--callable", "a:b", "--weights", "run.pth"),
            "--weights goes with an ARCHITECTURE, not with --callable",
        ),
        (("--exported", "a.pt2", "--prefix", "x"), "--prefix goes with an ARCHITECTURE, not with --exported"),
        (("--callable", "a:b", "--export"), "--export goes with an ARCHITECTURE, not with --callable"),
        (("digits", "--weights", "run.pth"), "nobody says how pixels are normalised: give --mean and --std"),
        (("digits", "--weights", "none.pth", *GRAY), "none.pth cannot be read: No such file or directory"),
        (
            ("digits", "--weights", "labels.txt", *GRAY),
            "labels.txt is neither safetensors nor a file of torch.save",
        ),
        (
            ("digits", "--weights", "run.pth", *GRAY, "--labels", "x"),
            "the labels file x cannot be read: No such file or directory",
        ),
        (
            ("resnet18", "--weights", "run.pth"),
            "the weights do not fit the architecture; missing: conv1.weight",
        ),
        (
            ("digits", "--weights", "run.pth", *GRAY, "--version", "-1"),
            "mine/-1 is no model name and version",
        ),
        (("digits", "--weights", "run.pth", *GRAY, "--version", "0"), "mine/0 is no model name and version"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str
) -> None:
    assert refused(capsys, *argv, "--name", "mine").startswith(said)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--input", "3,224"), "three numbers, such as 3,224,224"),
        (("--input", "0,1,1"), "three numbers, such as 3,224,224"),
        (("--mean", "a"), "one number for each channel"),
        (("--resize", "big"), "a number of pixels, or none"),
        (("--interpolation", "lanczos"), "invalid choice: 'lanczos'"),
        (("--options", "depth"), "an option is KEY=VALUE"),
        (("--version", "new"), "invalid int value: 'new'"),
    ],
)
def test_what_is_no_value_is_refused_with_what_is_one(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str
) -> None:
    status, _, err = run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *argv)
    assert status == 2
    assert said in err


def test_a_version_that_is_there_is_refused_before_the_checkpoint_is_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ("digits", "--name", "mine", *GRAY, "--version", "1", "--weights")
    assert run(capsys, *argv, "run.pth")[0] == 0
    assert run(capsys, *argv, "none.pth") == (1, "", "foldserve: mine/1 is in the store already\n")
    assert ModelStore(Path("store")).versions("mine") == [1]


def test_the_next_import_is_the_next_version(capsys: pytest.CaptureFixture[str]) -> None:
    for version in (1, 2):
        status, out, _ = run(capsys, "digits", "--weights", "run.pth", "--name", "mine", *GRAY)
        assert status == 0
        assert out.endswith(f"wrote mine/{version}; foldserve serve serves it\n")
