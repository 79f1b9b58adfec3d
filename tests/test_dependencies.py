"""What is installed is what was looked at: every version pinned, every licence known."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"

LICENCES = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-CMU"),
    *("MPL-2.0", "PSF-2.0", "Zlib", "LLVM-exception"),
}
"""Which let anybody use foldserve as its own licence does; MPL-2.0 where its files stay as they are."""
CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
SAYS_NOTHING = {"pysimdjson": "MIT"}
"""Whose package says nothing of its licence; it was read in its source."""


def wanted() -> set[str]:
    """What foldserve needs to serve and to be tested, with what that needs, by canonical name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    left = [Requirement(each) for each in (*project["dependencies"], *extras["test"], *extras["train"])]
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen or name == "foldserve":
                continue
            seen.add((name, extra))
            found.add(name)
            needed = [Requirement(each) for each in importlib.metadata.requires(name) or ()]
            left += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]
    return found


WANTED = sorted(wanted())


def pinned() -> dict[str, str]:
    lines = PINS.read_text(encoding="utf-8").splitlines()
    parts = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, _, version in parts}


def test_the_walk_finds_what_others_bring_along() -> None:
    assert {"fastapi", "starlette", "torch", "sympy", "pytest", "pluggy", "scikit-learn"} <= set(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_what_is_installed_is_pinned_at_its_version(name: str) -> None:
    if name.startswith(("nvidia-", "cuda-")) or name == "triton":
        pytest.skip("a CUDA build of torch pins these itself")
    assert pinned()[name] == importlib.metadata.version(name).partition("+")[0]


@pytest.mark.parametrize("name", WANTED)
def test_its_licence_is_one_that_is_known(name: str) -> None:
    if name.startswith(("nvidia-", "cuda-")):
        pytest.skip("NVIDIA's own licence, which lets a CUDA build of torch bring them along")
    said = licences(name)
    assert said
    assert said <= LICENCES


def licences(name: str) -> set[str]:
    told: Any = importlib.metadata.metadata(name)  # a message, with all that messages can do
    classifiers = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier") or ()]
    classified = {CLASSIFIED[each] for each in classifiers if each in CLASSIFIED}
    expressions = told.get_all("License-Expression") or ([] if classified else told.get_all("License") or [])
    named = set(re.findall(r"[A-Za-z0-9.-]+", " ".join(expressions))) - {"AND", "OR", "WITH"}
    return named or classified or {SAYS_NOTHING[name]}


# The audit


class Index(HTTPServer):
    """Answers as OSV does, with what the test says."""

    answer: bytes = b""
    asked: Any = None


class Answering(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Index)
        assert self.path == "/v1/querybatch"
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def index() -> Iterator[Index]:
    with Index(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def audited(address: str, *files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "audit.py"), *map(str, files)]
    environment = {"AUDIT_INDEX": address, "no_proxy": "*"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def address_of(index: Index) -> str:
    return f"http://127.0.0.1:{index.server_address[1]}"


def test_the_audit_asks_for_every_pin_and_passes_where_nothing_is_known(index: Index) -> None:
    index.answer = json.dumps({"results": [{}] * len(pinned())}).encode()
    done = audited(address_of(index), PINS)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(pinned())} versions were looked up; 0 advisories" in done.stdout
    queries = {canonicalize_name(each["package"]["name"]): each["version"] for each in index.asked["queries"]}
    assert queries == pinned()
    assert {each["package"]["ecosystem"] for each in index.asked["queries"]} == {"PyPI"}


def test_the_audit_fails_where_something_is_known(index: Index) -> None:
    index.answer = json.dumps(
        {"results": [{"vulns": [{"id": "GHSA-x"}]}, *[{}] * (len(pinned()) - 1)]}
    ).encode()
    done = audited(address_of(index), PINS)
    assert done.returncode == 1
    assert re.search(r"^\S+ \S+: GHSA-x, ", done.stdout)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"{}", b'{"results": []}', b"[]", b'{"results": null}'])
def test_an_answer_that_is_none_is_no_pass(index: Index, answer: bytes) -> None:
    index.answer = answer
    done = audited(address_of(index), PINS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("NOT AUDITED")


def test_nobody_there_is_no_pass(tmp_path: Path) -> None:
    assert audited("http://127.0.0.1:1", PINS).stderr.startswith("NOT AUDITED")
    empty = tmp_path / "pins.txt"
    empty.write_text("# nothing\n", encoding="utf-8")
    assert audited("http://127.0.0.1:1", empty).returncode == 2
