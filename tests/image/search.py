"""Looks for secrets below a folder: a line with its reason for each, and status 1 where there is any.

Runs in the image too, on the standard library alone. What follows the folder is left out.

usage: python search.py FOLDER [LEFT-OUT ...]
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 1 << 20
NAMES = {
    **dict.fromkeys((".netrc", "_netrc", ".pypirc", ".npmrc", ".git-credentials"), "passwords of a user"),
    **dict.fromkeys(("pip.conf", "pip.ini", "uv.toml"), "the configuration of a package index"),
    **dict.fromkeys(
        ("id_rsa", "id_ecdsa", "id_ed25519", ".htpasswd", "shadow-"), "a private key or passwords"
    ),
    **dict.fromkeys((".git", ".hg", ".svn"), "the history of the source"),
    **dict.fromkeys((".ssh", ".aws", ".docker", ".kube", ".gnupg", ".azure"), "credentials of a user"),
    **dict.fromkeys((".env", ".bash_history", ".python_history", "kubeconfig"), "what somebody did here"),
}
CONTENTS: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "a private key": ((b"PRIVATE KEY",), rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{40,}"),
    "a key of AWS": ((b"AKIA", b"ASIA"), rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token of GitHub": (
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b",
    ),
    "a token of GitLab": ((b"glpat-",), rb"\bglpat-[A-Za-z0-9_-]{20}\b"),
    "a token of PyPI": ((b"pypi-AgEI",), rb"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{20,}"),
    "a token of Hugging Face": ((b"hf_",), rb"\bhf_[A-Za-z0-9]{34}\b"),
    "a token of Slack": ((b"xox",), rb"\bxox[abp]-[0-9]{8,}-[A-Za-z0-9-]{10,}"),
    "a key of foldserve": (
        (b"admin:", b"inference:"),
        rb"(?m)^(?:FOLDSERVE_KEYS=)?(?:admin|inference):[A-Za-z0-9_.-]{1,64}:[\x21-\x2b\x2d-\x7e]{16,}",
    ),
}
"""By reason: what a text must hold to be worth the second look, and the second look."""
WITH_PASSWORD = re.compile(rb"://[^\s/:@'\"<>{}$]+:[^\s/@'\"<>{}$]+@[A-Za-z0-9.-]+")
OF_CODE = {".py", ".pyi", ".md", ".rst", ".html", ".js", "METADATA"}
"""Files in which an address with a password is an example."""
COMPILED = {".so", ".pyc"}


def found(folder: Path, left_out: set[Path]) -> Iterator[tuple[Path, str]]:
    """Every path that should not be there, with its reason."""
    device = folder.stat().st_dev
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if _is_looked_into(here / name, left_out, device)]
        for name in (*folders, *files):
            if name in NAMES:
                yield here / name, NAMES[name]
        for name in files:
            yield from ((here / name, reason) for reason in said_by(here / name))


def said_by(path: Path) -> list[str]:
    """What a file holds that should not be there; nothing where it is large, or not to be read."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST or path.suffix in COMPILED:
            return []
        content = path.read_bytes()
    except OSError:
        return []
    reasons = told(content)
    if WITH_PASSWORD.search(content) and not {path.suffix, path.name} & OF_CODE:
        reasons.append("an address with a password")
    return reasons


def told(content: bytes) -> list[str]:
    """What any text holds that should not be there: a file, a variable, a step of a build."""
    return [
        reason
        for reason, (marks, pattern) in CONTENTS.items()
        if any(mark in content for mark in marks) and re.search(pattern, content)
    ]


def _is_looked_into(folder: Path, left_out: set[Path], device: int) -> bool:
    try:
        return folder not in left_out and not folder.is_symlink() and folder.stat().st_dev == device
    except OSError:
        return False


if __name__ == "__main__":
    lines = [f"{path}: {reason}" for path, reason in found(Path(sys.argv[1]), set(map(Path, sys.argv[2:])))]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.exit(bool(lines))
