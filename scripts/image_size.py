"""Says how large the image is that this runs in, and fails where foldserve's own part is too large.

That part is what the image holds beyond its base, torch, and what torch itself depends on.

usage, in the image: python3 - <scripts/image_size.py
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

LIMIT = 120_000_000
OURS = (Path("/opt/foldserve"), Path("/models"))
APART = {"proc", "sys", "dev", "tmp", "run", "opt", "models"}


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def with_its_own(wanted: str) -> list[Distribution]:
    """A package, what it requires, what these require, as far as it is installed."""
    installed = {name_of(found.metadata["Name"]): found for found in distributions()}
    names = [wanted]
    for name in names:
        required = [line for line in installed[name].requires or [] if "extra ==" not in line]
        names += sorted({name_of(line) for line in required} & set(installed) - set(names))
    return [installed[name] for name in names]


def places(package: Distribution) -> set[Path]:
    """The folders and files of a package, beside each other where packages are installed."""
    tops = {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}
    return {Path(str(package.locate_file(top))) for top in tops}


def size(paths: Iterable[Path]) -> int:
    """Bytes of all files below."""
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def main() -> int:
    torch = size(set().union(*map(places, with_its_own("torch"))))
    ours = size(OURS) - torch
    base = size(path for path in Path("/").iterdir() if path.name not in APART and not path.is_symlink())
    sys.stdout.write(
        f"The image: {ours / 1e6:.1f} MB above torch and its own dependencies (at most {LIMIT / 1e6:.0f}),"
        f" {torch / 1e6:.1f} MB of these, {base / 1e6:.1f} MB of its base\n"
    )
    return int(ours > LIMIT)


sys.exit(main())
