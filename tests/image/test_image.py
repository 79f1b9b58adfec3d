"""The built image, started as a user would start it, with nothing mounted."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

pytestmark = pytest.mark.image

IMAGE = os.environ.get("IMAGE", "foldserve")
DIGITS = sorted(Path(__file__).parents[1].joinpath("digits").glob("*.png"))
PATIENCE = 300.0  # seconds; only a hang takes this long


class Container(Protocol):
    """One container of the image, on the host's network."""

    def start(self, environment: dict[str, str]) -> None: ...
    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]: ...
    def running(self) -> bool: ...
    def terminate(self) -> int: ...
    def remove(self) -> None: ...


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def output_of(*command: str) -> str:
    finished = ran(*command)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def configuration_with_docker() -> dict[str, Any]:
    described: list[dict[str, Any]] = json.loads(output_of("docker", "image", "inspect", IMAGE))
    return dict(described[0]["Config"])


def configuration_with_buildah() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(output_of("buildah", "inspect", "--type", "image", IMAGE))
    return dict(described["Docker"]["config"])


def variables(environment: dict[str, str]) -> list[str]:
    return [f"--env={key}={value}" for key, value in environment.items()]


class DockerContainer:
    name = ""

    def start(self, environment: dict[str, str]) -> None:
        """Start it as an untrusting operator would: nothing writable but /tmp, no capability at all."""
        limits = ["--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        given = variables(environment)
        self.name = output_of("docker", "run", "--detach", "--network=host", *limits, *given, IMAGE)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ran("docker", "exec", *variables(environment), self.name, *command)

    def running(self) -> bool:
        return output_of("docker", "inspect", "--format", "{{.State.Running}}", self.name) == "true"

    def terminate(self) -> int:
        output_of("docker", "kill", "--signal", "TERM", self.name)
        return int(output_of("docker", "wait", self.name))

    def remove(self) -> None:
        output_of("docker", "rm", "--force", self.name)


class BuildahContainer:
    """`buildah run` has no daemon: the service is a descendant of this process, seen in /proc."""

    def __init__(self) -> None:
        self.configuration = configuration_with_buildah()
        self.name = output_of("buildah", "from", "--pull-never", IMAGE)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *command: str, **environment: str) -> list[str]:
        user = self.configuration["User"]
        return ["buildah", "run", "--user", user, *variables(environment), self.name, "--", *command]

    def start(self, environment: dict[str, str]) -> None:
        service = [*self.configuration["Entrypoint"], *self.configuration["Cmd"]]
        self.process = subprocess.Popen(self.command(*service, **environment))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return ran(*self.command(*command, **environment))

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def terminate(self) -> int:
        assert self.process is not None
        os.kill(service_below(self.process.pid), signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)

    def remove(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(service_below(self.process.pid), signal.SIGKILL)
            self.process.wait(timeout=PATIENCE)
        output_of("buildah", "rm", self.name)


def service_below(process: int) -> int:
    """Return the first descendant that is not buildah itself."""
    below = process
    while "buildah" in Path(f"/proc/{below}/cmdline").read_bytes().split(b"\0")[0].decode():
        below = min(children_of(below))
    return below


def children_of(process: int) -> list[int]:
    threads = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def docker_answers() -> bool:
    return shutil.which("docker") is not None and ran("docker", "info").returncode == 0


def buildah_has_image() -> bool:
    os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
    inspect = ("buildah", "inspect", "--type", "image", IMAGE)
    return shutil.which("buildah") is not None and ran(*inspect).returncode == 0


@dataclass
class Served:
    container: Container
    port: int

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE, trust_env=False)

    def predict(self, image: Path) -> httpx.Response:
        address = f"http://127.0.0.1:{self.port}/v1/models/digits/predict"
        png = {"Content-Type": "image/png"}
        return httpx.post(address, content=image.read_bytes(), headers=png, timeout=PATIENCE, trust_env=False)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.ready():
            assert self.container.running(), "the service ended before it was ready; its output is above"
            assert time.monotonic() < deadline, f"/readyz did not answer 200 within {PATIENCE:.0f} seconds"
            time.sleep(0.1)

    def ready(self) -> bool:
        try:
            return self.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def with_docker() -> bool:
    if docker_answers():
        return True
    if not buildah_has_image():
        pytest.fail(f"neither docker nor buildah has an image named {IMAGE} here; `make image` builds it")
    return False


@pytest.fixture(scope="session")
def configuration(with_docker: bool) -> dict[str, Any]:
    return configuration_with_docker() if with_docker else configuration_with_buildah()


@contextmanager
def serving(with_docker: bool) -> Iterator[Served]:
    container: Container = DockerContainer() if with_docker else BuildahContainer()
    served = Served(container, free_port())
    try:
        container.start({"FOLDSERVE_PORT": str(served.port)})
        served.wait_until_ready()
        yield served
    finally:
        container.remove()


@pytest.fixture(scope="module")
def served(with_docker: bool) -> Iterator[Served]:
    with serving(with_docker) as running:
        yield running


def test_image_says_how_it_is_run_stopped_and_watched(configuration: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", configuration["User"])
    assert configuration["StopSignal"] == "SIGTERM"
    assert configuration["ExposedPorts"] == {"8000/tcp": {}}
    assert configuration["Entrypoint"] == ["foldserve"]
    assert configuration["Cmd"] == ["serve"]
    assert "/readyz" in configuration["Healthcheck"]["Test"][-1]
    assert not configuration.get("Volumes")


def test_digits_are_recognised_with_nothing_mounted(served: Served) -> None:
    assert DIGITS, "tests/digits holds no PNG file"
    for image in DIGITS[:10]:
        answer = served.predict(image)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["label"] == image.name.split("_")[0]


def test_service_does_not_run_as_root(served: Served) -> None:
    assert int(served.container.run("id", "-u").stdout) != 0


def test_service_cannot_write_to_its_own_files(served: Served) -> None:
    for place in ("/opt/foldserve/written", "/models/written", "/written"):
        assert served.container.run("touch", place).returncode != 0


def test_health_check_tells_a_serving_container_from_one_that_does_not_answer(
    served: Served, configuration: dict[str, Any]
) -> None:
    check = configuration["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert served.container.run(*check[1:], FOLDSERVE_PORT=str(served.port)).returncode == 0
    assert served.container.run(*check[1:], FOLDSERVE_PORT=str(free_port())).returncode != 0


def test_neither_pip_nor_a_compiler_is_in_the_image(served: Served) -> None:
    assert served.container.run("python3", "-m", "pip", "--version").returncode != 0
    assert served.container.run("gcc", "--version").returncode != 0


def test_sigterm_ends_the_service_with_exit_code_zero(with_docker: bool) -> None:
    with serving(with_docker) as running:
        assert running.container.terminate() == 0
