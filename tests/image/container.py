"""The built image as a container: docker's, or, where only buildah is, one made of the image's files.

Either is started as an untrusting operator would: the image's own user, nothing writable but /tmp, 64 MiB
of /dev/shm, no capability, the service as the first process of a namespace of its own. Only the network is
the host's, and no limit of memory is set.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NAME = os.environ.get("IMAGE", "foldserve")
PATIENCE = 300.0  # seconds; only a hang takes this long
SHM_MIB = 64
MODELS = Path("/models")
NVIDIA = Path("/dev/nvidiactl")

Finished = subprocess.CompletedProcess[str]


class Container(Protocol):
    """One container; the methods of `Popen` are about the service in it."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...
    def run(self, *command: str, **environment: str) -> Finished: ...


class Image(Protocol):
    """The image, whoever keeps it."""

    @property
    def configuration(self) -> Mapping[str, Any]: ...

    @property
    def history(self) -> list[str]:
        """What each step of the build says of itself; it stays in the image."""

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        store: Path | None = None,
        output: IO[bytes] | None = None,
    ) -> Container:
        """Start the image's entry point with these arguments, or its own; `store` is mounted at /models."""


@functools.cache
def built(name: str = NAME) -> Image:
    """The image of that name; raises `LookupError` where there is none."""
    from .docker import DockerImage
    from .namespaces import BuildahImage

    if shutil.which("docker") and ran("docker", "info").returncode == 0:
        return DockerImage(name)
    os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
    if not shutil.which("buildah") or ran("buildah", "inspect", "--type", "image", name).returncode:
        raise LookupError(f"neither docker nor buildah has an image named {name}; `make image` builds it")
    if os.geteuid():
        raise LookupError("without a Docker daemon only root can start the image, in namespaces of its own")
    return BuildahImage(name)


def ran(*command: str) -> Finished:
    with _one_at_a_time() if command[0] == "buildah" else nullcontext():
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Several processes run the tests, and a buildah may lose its container while another removes one."""
    with (Path(tempfile.gettempdir()) / "foldserve-buildah.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def output_of(*command: str) -> str:
    finished = ran(*command)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()
