"""Containers of the image that a Docker daemon runs."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any

from .container import MODELS, NVIDIA, PATIENCE, SHM_MIB, Finished, output_of, ran

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class DockerImage:
    def __init__(self, name: str) -> None:
        self.name = name
        described: list[dict[str, Any]] = json.loads(output_of("docker", "image", "inspect", name))
        self.configuration: Mapping[str, Any] = described[0]["Config"]
        steps = output_of("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", name)
        self.history = steps.splitlines()

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
