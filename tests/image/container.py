"""The built image as a container: docker's, or, where only buildah is, one made of the image's files.

Either is started as an untrusting operator would: the image's own user, nothing writable but /tmp, 64 MiB
of /dev/shm, no capability, the service as the first process of a namespace of its own. Only the network is
the host's, and no limit of memory is set.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    if shutil.which("docker") and ran("docker", "info").returncode == 0:
        return DockerImage(name)
    os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
    if not shutil.which("buildah") or ran("buildah", "inspect", "--type", "image", name).returncode:
        raise LookupError(f"neither docker nor buildah has an image named {name}; `make image` builds it")
    if os.geteuid():
        raise LookupError("without a Docker daemon only root can start the image, in namespaces of its own")
    return BuildahImage(name)


def ran(*command: str) -> Finished:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def output_of(*command: str) -> str:
    finished = ran(*command)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def _arguments(configuration: Mapping[str, Any], arguments: tuple[str, ...]) -> list[str]:
    return [*configuration["Entrypoint"], *(arguments or configuration["Cmd"])]


# --- docker


class DockerImage:
    def __init__(self, name: str) -> None:
        self.name = name
        described: list[dict[str, Any]] = json.loads(output_of("docker", "image", "inspect", name))
        self.configuration: Mapping[str, Any] = described[0]["Config"]

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        store: Path | None = None,
        output: IO[bytes] | None = None,
    ) -> DockerContainer:
        name = f"foldserve-test-{os.getpid()}-{time.monotonic_ns()}"
        shape = ["--network=host", "--read-only", "--tmpfs=/tmp", f"--shm-size={SHM_MIB}m"]
        shape += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        shape += [f"--volume={store}:{MODELS}:ro"] if store else []
        wants_gpu = environment.get("FOLDSERVE_DEVICE", "").startswith("cuda")
        shape += ["--gpus=all"] if wants_gpu and NVIDIA.exists() else []
        variables = [f"--env={key}={value}" for key, value in environment.items()]
        command = ["docker", "run", "--rm", "--name", name, *shape, *variables, self.name, *arguments]
        stream = output or None
        return DockerContainer(name, subprocess.Popen(command, stdout=stream, stderr=stream))


class DockerContainer:
    """`docker run` in the foreground, which ends with the service's exit status."""

    def __init__(self, name: str, client: subprocess.Popen[bytes]) -> None:
        self._name = name
        self._client = client

    @property
    def pid(self) -> int:
        return int(output_of("docker", "inspect", "--format", "{{.State.Pid}}", self._name))

    def poll(self) -> int | None:
        return self._client.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._client.wait(timeout)

    def send_signal(self, sig: int) -> None:
        output_of("docker", "kill", "--signal", str(int(sig)), self._name)

    def kill(self) -> None:
        ran("docker", "rm", "--force", self._name)
        self._client.wait(PATIENCE)

    def run(self, *command: str, **environment: str) -> Finished:
        variables = [f"--env={key}={value}" for key, value in environment.items()]
        return ran("docker", "exec", *variables, self._name, *command)


# --- buildah, which can neither make a root file system read-only nor give it a /dev/shm of its own

_ENTER = """
root=$1 store=$2; shift 2
mount --bind "$root" "$root"
if [ -n "$store" ]; then mount --bind -o ro "$store" "$root/models"; fi
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=755,size=1m devices "$root/dev"
for device in null zero full random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=@SHM@m shm "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t proc proc "$root/proc"
exec chroot "$root" "$@"
"""
_ENTER = _ENTER.replace("@SHM@", str(SHM_MIB))
_WITHOUT_PRIVILEGES = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]


class BuildahImage:
    """The image's files, mounted once and only read, however many containers run on them."""

    def __init__(self, name: str) -> None:
        described = json.loads(output_of("buildah", "inspect", "--type", "image", name))
        self.configuration: Mapping[str, Any] = described["Docker"]["config"]
        self.files = output_of("buildah", "from", "--pull-never", name)
        atexit.register(ran, "buildah", "rm", self.files)
        self.root = output_of("buildah", "mount", self.files)

    def start(
        self,
        *arguments: str,
        environment: Mapping[str, str],
        store: Path | None = None,
        output: IO[bytes] | None = None,
    ) -> NamespaceContainer:
        # Whoever kills the tests kills what they started.
        namespaces = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork"]
        place = ["sh", "-eu", "-c", _ENTER, "sh", self.root, str(store or "")]
        command = self.command(*_arguments(self.configuration, arguments), **environment)
        running = subprocess.Popen(
            [*namespaces, *place, *command],
            stdin=subprocess.DEVNULL,
            stdout=output or None,
            stderr=output or None,
        )
        return NamespaceContainer(self, running)

    def command(self, *command: str, **environment: str) -> list[str]:
        """The command as the image's user, with its variables and these; it dies with its parent."""
        user, _, group = self.configuration["User"].partition(":")
        given = [f"{key}={value}" for key, value in environment.items()]
        rights = [f"--reuid={user}", f"--regid={group}", *_WITHOUT_PRIVILEGES, "--pdeathsig=KILL"]
        return ["setpriv", *rights, "env", "-i", *self.configuration["Env"], *given, *command]


class NamespaceContainer:
    """`unshare`, which ends with the exit status of its child, the service."""

    def __init__(self, image: BuildahImage, running: subprocess.Popen[bytes]) -> None:
        self._image = image
        self._running = running

    @property
    def pid(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while not (found := _children(self._running.pid)):
            assert self.poll() is None, "the container ended before it began"
            assert time.monotonic() < deadline, "the container has no process"
            time.sleep(0.01)
        return found[0]

    def poll(self) -> int | None:
        return self._running.poll()

    def wait(self, timeout: float | None = None) -> int:
        return self._running.wait(timeout)

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)

    def kill(self) -> None:
        for first in _children(self._running.pid):  # with which all others end
            os.kill(first, signal.SIGKILL)
        self._running.wait(PATIENCE)

    def run(self, *command: str, **environment: str) -> Finished:
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "chroot", self._image.root]
        return ran(*inside, *self._image.command(*command, **environment))


def _children(process: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
