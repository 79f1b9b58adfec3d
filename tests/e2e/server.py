"""foldserve in a process of its own, and what a client may say to it."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tests.image.container import built

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from tests.image.container import Container

IMAGE = os.environ.get("FOLDSERVE_TEST_IMAGE")
"""The image that services are started from, in place of this working tree."""

ROOT = Path(__file__).parents[2]
STORE = ROOT / "model_store"
PATIENCE = 300.0  # seconds; only a hang takes this long, on a slow machine that does other things too
NPY = "application/x-npy"
CONNECTED: list[socket.socket] = []
"""What tests have opened with `Service.connect`; a test that fails leaves them to its `conftest.py`."""

T = TypeVar("T")

_READY = re.compile(r"ready at (http://\S+)")
# Whoever kills the tests kills what they started; 1 is PR_SET_PDEATHSIG.
_DIE_WITH_PARENT = (
    f"import ctypes, os, sys; ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)}); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, with these settings of foldserve and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOLDSERVE_")}
    kept.pop("FORCE_COLOR", None)
    return kept | variables(**settings)


def variables(**settings: object) -> dict[str, str]:
    """These settings as variables."""
    return {f"FOLDSERVE_{name.upper()}": str(value) for name, value in settings.items()}


def until(look: Callable[[], T]) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _from_working_tree(log: IO[bytes], *arguments: str, **settings: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _DIE_WITH_PARENT, "-m", "service", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def _from_image(image: str, log: IO[bytes], *arguments: str, **settings: object) -> Container:
    """A container on this machine's network; a store that a test made is mounted at /models."""
    store = Path(str(settings.get("model_store", "")))
    if "model_store" not in settings or not store.is_dir():
        given, mounted = settings, None
    else:
        given, mounted = {k: v for k, v in settings.items() if k != "model_store"}, store
        _let_everybody_read(store)
    listening: dict[str, object] = {"host": "127.0.0.1"}
    return built(image).start(
        *arguments, environment=variables(**(listening | given)), store=mounted, output=log
    )


def _let_everybody_read(store: Path) -> None:
    """The service in the image is another user; what pytest makes is its own user's alone."""
    for path in (store, *store.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


class Process:
    """`foldserve ...`, of the working tree or the image; leaving the `with` block kills what still runs."""

    def __init__(self, *arguments: str, **settings: object) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is
        self._running: Container | subprocess.Popen[bytes] = (
            _from_image(IMAGE, self._log, *arguments, **settings)
            if IMAGE
            else _from_working_tree(self._log, *arguments, **settings)
        )

    @property
    def log(self) -> str:
        """What it wrote so far, on either stream."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode()

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def has_ended(self) -> bool:
        return self._running.poll() is not None

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The first match in the log; fails where the process ends without it."""

        def look() -> re.Match[str] | None:
            ended = self.has_ended
            found = re.search(pattern, self.log)
            assert found or not ended, f"the process ended with {self._running.poll()}:\n{self.log}"
            return found

        found = until(look)
        assert found
        return found

    def signal(self, number: int) -> None:
        self._running.send_signal(number)

    def wait(self) -> int:
        """The exit status; negative for a signal."""
        return self._running.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.wait(PATIENCE)
        self._log.close()


class Service:
    """A running service as a client sees it; `close` it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.http = httpx.Client(base_url=address, timeout=PATIENCE, trust_env=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def predict(
        self, content: bytes, media_type: str = "image/png", *, accept: str = "*/*", **query: object
    ) -> httpx.Response:
        """What the digits model answers to one body."""
        headers = {"Content-Type": media_type, "Accept": accept}
        given = {name: str(value) for name, value in query.items()}
        return self.http.post("/v1/models/digits/predict", content=content, headers=headers, params=given)

    def array(self, content: bytes, media_type: str = "image/png", **query: object) -> np.ndarray:
        """The answer as an array."""
        answer = self.predict(content, media_type, accept=NPY, **query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == NPY
        read: np.ndarray = np.load(io.BytesIO(answer.content), allow_pickle=False)
        return read

    def logits(self, content: bytes, media_type: str = "image/png", **query: object) -> np.ndarray:
        return self.array(content, media_type, output="logits", **query)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every sample by name and label values, as in `("foldserve_rows_total", "digits", "1")`."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    def metric(self, *name: str) -> float:
        """One sample; 0 where nothing was counted yet."""
        return self.metrics().get(name, 0.0)

    def connect(self) -> socket.socket:
        """A connection of one's own, to send what no HTTP library sends."""
        parts = urlsplit(self.address)
        CONNECTED.append(socket.create_connection((parts.hostname, parts.port or 80), timeout=PATIENCE))
        return CONNECTED[-1]

    def refuses(self) -> bool:
        """Whether nobody listens at the address any more."""
        try:
            self.connect().close()
        except ConnectionError:
            return True
        return False

    def close(self) -> None:
        self.http.close()


class Server(Service):
    """`foldserve serve` on a port of its own, ready; leaving the `with` block ends it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        super().__init__(process.wait_for(_READY)[1])

    @classmethod
    def start(cls, **settings: Any) -> Self:
        # One thread computes: what shares the machine with the tests must not slow every barrier down.
        process = Process("serve", **{"port": 0, "threads": 1} | settings)
        try:
            return cls(process)
        except BaseException:
            process.__exit__()
            raise

    @property
    def log(self) -> str:
        return self.process.log

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal; the answer is the exit status."""
        self.process.signal(number)
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.process.__exit__()
