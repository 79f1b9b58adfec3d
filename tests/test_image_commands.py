"""What the commands on images of the user's own have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from service import cli
from service.console import print_not_read

ROOT = Path(__file__).parents[1]
COMMANDS = ["evaluate", "calibrate", "doctor"]


def refusal(capsys: pytest.CaptureFixture[str], command: str, images: Path) -> str:
    where = ["--model-store", str(ROOT / "model_store"), "--device", "cpu", "--threads", "1"]
    assert cli.main([command, "digits", "--images", str(images), *where]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert "'none' is not a folder of images" in refusal(capsys, command, tmp_path / "none")
    assert "'a.png' is not a folder of images" in refusal(capsys, command, tmp_path / "a.png")


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_folder_without_images_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    assert "holds no JPEG or PNG" in refusal(capsys, command, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_images_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "digits"])
    assert "--images" in capsys.readouterr().err


def test_of_many_unreadable_images_twenty_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    print_not_read([(f"{number}.png", "why [not]") for number in range(23)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Not read: 0.png: why [not]"
    assert (len(lines), lines[-1]) == (21, "Nor were 3 more; --json names them all.")
