"""The gallery: which files of a folder are images to look at, and folders that cannot be looked into."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from service.calibration import gallery
from service.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534

LOOK = """
import json, os, sys
from pathlib import Path
from service.calibration import gallery
from service.errors import InvalidConfiguration
from service.evaluation import pictures
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({nobody})
    os.setuid({nobody})
said = []
for folder in sys.argv[1:]:
    for of in (gallery.of, lambda path: pictures.of(path, None, 10)):
        try:
            of(Path(folder))
            said.append("")
        except InvalidConfiguration as error:
            said.append(str(error))
print(json.dumps(said))
"""


def touched(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_images_lie_in_folders_or_not_and_links_in_circles_are_not_followed(tmp_path: Path) -> None:
    for name in ("b.png", "a/1.JPEG", "a/b/2.jpg", "a/note.txt", ".hidden.png", "a/.dark/3.png"):
        touched(tmp_path / name)
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to("self.png")
    assert [each.name for each in gallery.of(tmp_path)] == ["a/1.JPEG", "a/b/2.jpg", "b.png", "self.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    touched(tmp_path / "note.txt")
    with pytest.raises(InvalidConfiguration, match="holds no JPEG or PNG"):
        gallery.of(tmp_path)
    with pytest.raises(InvalidConfiguration, match="is not a folder"):
        gallery.of(tmp_path / "note.txt")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_folder_that_may_not_be_read_is_named_and_never_skipped(public: Path) -> None:
    for name in ("outer/1.png", "outer/closed/2.png"):
        touched(public / name)
    outer, closed = public / "outer", public / "outer" / "closed"
    closed.chmod(0)
    asked = [outer, closed, closed / "inner"]
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(nobody=NOBODY), *map(str, asked)], capture_output=True, check=False
    )
    closed.chmod(0o755)
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    assert said[0] == said[2] == said[3] == "the folder 'closed' cannot be read: Permission denied"
    assert said[4] == said[5] == "'inner' is not a folder of images"
