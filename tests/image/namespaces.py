"""Containers made of the files of an image that buildah keeps.

`buildah run` can neither make a root file system read-only nor give it a /dev/shm of its own, so here the
containers are namespaces, made with unshare.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .container import PATIENCE, SHM_MIB, Finished, output_of, ran

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        self.history = [str(step.get("created_by", "")) for step in described["Docker"]["history"]]
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
        asked = arguments or self.configuration["Cmd"]
        command = self.command(*self.configuration["Entrypoint"], *asked, **environment)
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
