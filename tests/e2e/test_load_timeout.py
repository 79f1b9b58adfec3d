"""Loads that do not end, or cannot be made now: what was served still is, and what is asked for next is."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from .digits import Digits, assert_serves
from .load import Load, rows
from .server import ROOT, Process, Server, until
from .stores import copied, with_manifest
from .test_model_control import KEYS, SECRET, change, index, published, served
from .tree import Tree, are_gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

PATIENT_S = 30
"""Much more than to load the digits takes."""

# Read by every Python that starts: the engine finds one more architecture, which is built for as long as
# there is a file, and is the digits' behind that.
WITH_ENDLESS = """
import os, sys, time

if "service.engine" in " ".join(sys.orig_argv):
    from service.network import catalog

    def endless(**options):
        while os.path.exists({file!r}):
            open({file!r} + ".begun", "w").close()
            time.sleep(0.01)
        return catalog._ARCHITECTURES["digits"](**options)

    catalog._ARCHITECTURES["endless"] = endless
"""


class Endless:
    """A store of digits/1, and what is loaded for ever until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        self._file = folder / "endless"
        self._file.touch()
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(WITH_ENDLESS.format(file=str(self._file)))

    def add(self, name: str = "endless") -> Path:
        version = published(self.store, 1, name=name)
        with_manifest(version, lambda document: document.update(architecture="endless"))
        return version

    def wait_until_begun(self) -> None:
        until(self._file.with_name("endless.begun").exists)

    def let_go(self) -> None:
        self._file.unlink()


@pytest.fixture
def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endless:
    made = Endless(tmp_path)
    copied(made.store)
    paths = [str(tmp_path / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return made


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def server_of(endless: Endless, **settings: Any) -> Server:
    return Server.start(model_store=endless.store, model_control="explicit", keys=KEYS, **settings)


def test_a_load_that_does_not_end_is_given_up_and_holds_nothing_else_up(
    endless: Endless, digits: Digits, clients: ThreadPoolExecutor
) -> None:
    with server_of(endless, load_timeout_s=PATIENT_S, workers=2) as server:
        stuck = endless.add()
        published(endless.store, 2)
        with Load(server.address, [rows(digits, at, 2) for at in range(20)], 4) as load:
            first = clients.submit(change, server, "load", "endless")
            endless.wait_until_begun()
            waiting = [clients.submit(change, server, "load") for _ in range(2)]
            load.more(20)
            assert not waiting[0].done()
            refused = first.result()
            assert refused.status_code == 503
            reason = f"endless/1: it has taken longer than {PATIENT_S} s and is waited for no more"
            assert refused.json() == {"error": reason}
            assert [answer.result().status_code for answer in waiting] == [200, 200]
            load.more(20)
        assert all(outcome.is_right for outcome in load.outcomes)
        assert served(server) == [("digits", 2)]
        assert until(lambda: index(server)["endless", 1]) == ("UNAVAILABLE", reason)
        again = change(server, "load", "endless")
        assert again.status_code == 503
        assert again.json() == {"error": "endless/1: a load of it that was given up has not ended"}
        assert change(server, "unload", "endless").status_code == 404
        # Other files in its place are no such load
        with_manifest(stuck, lambda document: document.update(architecture="digits"))
        assert change(server, "load", "endless").status_code == 200
        assert served(server) == [("digits", 2), ("endless", 1)]
        assert server.metric("foldserve_model_changes_total", "load", "endless", "load-stalled") == 2
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log


def test_a_start_that_does_not_end_is_the_end(endless: Endless) -> None:
    endless.add()
    shutil.rmtree(endless.store / "digits")
    with Process("serve", port=0, model_store=endless.store, load_timeout_s=1) as process:
        pids = [*Tree(process.pid).children(), Tree(process.pid).engine]
        assert process.wait() == 1
        assert "endless/1: loading it has taken longer than 1 s" in process.log
        assert "Traceback" not in process.log
        until(lambda: are_gone(pids))


def test_a_load_may_take_as_long_as_it_likes_where_the_setting_is_0(
    endless: Endless, clients: ThreadPoolExecutor
) -> None:
    with server_of(endless, load_timeout_s=0) as server:
        endless.add()
        asked = clients.submit(change, server, "load", "endless")
        endless.wait_until_begun()
        endless.let_go()
        assert asked.result().status_code == 200
        assert served(server) == [("digits", 1), ("endless", 1)]


def test_a_service_that_ends_waits_for_no_load(endless: Endless) -> None:
    with server_of(endless) as server, server.connect() as asking:
        endless.add()
        lines = [b"POST /v2/repository/models/endless/load HTTP/1.1", b"Host: localhost"]
        key = b"Authorization: Bearer " + SECRET.encode()
        asking.sendall(b"\r\n".join([*lines, b"Content-Length: 0", key, b"", b""]))
        endless.wait_until_begun()
        assert server.stop() == 0, server.log
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 503")


# Two who ask at once


def test_what_is_asked_for_while_a_model_is_loaded_is_done_behind_it(
    endless: Endless, clients: ThreadPoolExecutor
) -> None:
    with server_of(endless, workers=2) as server:
        endless.add()
        first = clients.submit(change, server, "load", "endless")
        endless.wait_until_begun()
        other = clients.submit(change, server, "load", "endless")
        endless.let_go()
        assert [first.result().status_code, other.result().status_code] == [200, 200]
        assert server.log.count("model 'endless' was loaded") == 1
        assert server.metric("foldserve_model_changes_total", "load", "endless", "ok") == 2


def test_an_unload_while_a_model_is_loaded_follows_it(endless: Endless, clients: ThreadPoolExecutor) -> None:
    with server_of(endless) as server:
        endless.add()
        loading = clients.submit(change, server, "load", "endless")
        endless.wait_until_begun()
        unloading = clients.submit(change, server, "unload", "endless")
        endless.let_go()
        assert loading.result().status_code == 200
        assert unloading.result().status_code == 200
        assert served(server) == [("digits", 1)]


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_version_that_goes_or_changes_while_it_is_loaded_is_refused(
    endless: Endless, clients: ThreadPoolExecutor, how: str
) -> None:
    with server_of(endless) as server:
        version = endless.add()
        loading = clients.submit(change, server, "load", "endless")
        endless.wait_until_begun()
        shutil.rmtree(version)
        if how == "replaced":
            endless.add()
        endless.let_go()
        answer = loading.result()
        assert answer.status_code == 400
        why = {"deleted": "endless/1 is gone", "replaced": "endless/1 was changed while it was loaded"}
        assert answer.json()["error"].startswith(why[how])
        assert served(server) == [("digits", 1)]
        again = change(server, "load", "endless")
        assert again.status_code == (200 if how == "replaced" else 404), again.text


def test_a_load_once_the_end_has_begun_is_refused(
    endless: Endless, digits: Digits, clients: ThreadPoolExecutor
) -> None:
    """Over a connection of before, whose request was under way."""
    with server_of(endless, max_delay_ms=10_000, drain_timeout_s=60) as server:
        with server.connect() as asking:
            lines = [b"POST /v2/repository/models/digits/load HTTP/1.1", b"Host: localhost"]
            key = b"Authorization: Bearer " + SECRET.encode()
            asking.sendall(b"\r\n".join([*lines, key, b"Content-Length: 2", b"", b""]))
            assert_serves(server, digits)
            server.process.signal(15)
            until(server.refuses)
            asking.sendall(b"{}")
            answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))  # head and body may come apart
            assert answer.startswith(b"HTTP/1.1 503"), answer
            assert b"shutting down" in answer
        assert server.process.wait() == 0, server.log


# With the store

WITH_MEMORY = """
import sys

if "service.engine" in " ".join(sys.orig_argv):
    from service.engine import memory

    memory.free_bytes = lambda: float(open({file!r}).read())
"""


def test_a_version_that_did_not_fit_is_served_when_memory_is_free(
    endless: Endless, tmp_path: Path, digits: Digits
) -> None:
    free = tmp_path / "free"
    free.write_text("1e15")
    (tmp_path / "site" / "sitecustomize.py").write_text(WITH_MEMORY.format(file=str(free)))
    with Server.start(model_store=endless.store, model_control="poll", poll_s=0.1) as server:
        free.write_text("1000")
        published(endless.store, 2)
        server.process.wait_for("model 'digits' could not be loaded: digits/2: loading it takes about")
        tries = ("foldserve_model_changes_total", "load", "digits", "load-refused")
        until(lambda: server.metric(*tries) >= 3)
        assert served(server) == [("digits", 1)]
        assert "loading it takes about" in index(server)["digits", 2][1]
        free.write_text("1e15")
        until(lambda: served(server) == [("digits", 2)])
        assert_serves(server, digits)
        assert until(lambda: index(server)["digits", 2]) == ("READY", "")
        assert server.stop() == 0
        assert server.log.count("could not be loaded") == 1, "only the first try is said"


def test_a_version_is_served_once_it_is_whole_however_it_is_copied(tmp_path: Path, digits: Digits) -> None:
    store, whole = tmp_path / "store", copied(tmp_path / "staging", version=2)
    copied(store)
    target = store / "digits" / "2"
    with Server.start(model_store=store, model_control="poll", poll_s=0.1, workers=2) as server:
        with Load(server.address, [rows(digits, at, 2) for at in range(20)], 4) as load:
            target.mkdir()
            # The manifest early, and the weights in halves, with a pause as of a line that is down
            for name in ("model.toml", "labels.txt"):
                shutil.copy(whole / name, target)
            content = (whole / "weights.safetensors").read_bytes()
            (target / "weights.safetensors").write_bytes(content[: len(content) // 2])
            server.process.wait_for("model 'digits' could not be loaded: digits/2: weights.safetensors has")
            load.more(20)
            assert served(server) == [("digits", 1)]
            for file in whole.iterdir():
                shutil.copy(file, target)
            until(lambda: served(server) == [("digits", 2)])
            # The manifest last: nothing is said of the rest before
            log = server.log
            (store / "digits" / "3").mkdir()
            for file in sorted(whole.iterdir(), key=lambda file: file.name == "model.toml"):
                assert served(server) == [("digits", 2)]
                shutil.copy(file, store / "digits" / "3")
            until(lambda: served(server) == [("digits", 3)])
        assert all(outcome.is_right for outcome in load.outcomes)
        assert "ERROR" not in server.log.removeprefix(log)
        assert server.stop() == 0


# What is no file


@pytest.mark.parametrize("name", ["weights.safetensors", "model.toml", "labels.txt"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(shared: tuple[Server, Path], name: str) -> None:
    server, store = shared
    version = published(store, 2)
    (version / name).unlink()
    os.mkfifo(version / name)
    try:
        answer = change(server, "load")
        assert answer.status_code == 400
        assert "digits/2" in answer.json()["error"]
        assert name in answer.json()["error"]
        assert served(server) == [("digits", 1)]
    finally:
        shutil.rmtree(version)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    store = tmp_path_factory.mktemp("pipes") / "store"
    copied(store)
    with Server.start(model_store=store, model_control="explicit", keys=KEYS) as server:
        yield server, store
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log
