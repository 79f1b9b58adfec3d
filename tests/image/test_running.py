"""The built image, started as a user would start it, with nothing mounted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service import __version__
from tests.e2e.server import free_port, until
from tests.e2e.stores import copied

from .conftest import serving
from .container import PATIENCE, SHM_MIB, ran
from .docker import DockerImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .conftest import Served
    from .container import Image

pytestmark = pytest.mark.image

STARTING_ONE = f"""
from tests.image.container import built
from tests.image.conftest import Served
image = built()
container = image.start(environment={{"FOLDSERVE_PORT": "{(port := free_port())}"}})
Served(container, {port}).wait_until_ready()
print(container.pid, image.files, flush=True)
input()
"""
DIGITS = sorted(Path(__file__).parents[1].joinpath("digits").glob("*.png"))


def test_image_says_how_it_is_run_stopped_and_watched(configuration: Mapping[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", configuration["User"])
    assert configuration["StopSignal"] == "SIGTERM"
    assert configuration["ExposedPorts"] == {"8000/tcp": {}}
    assert configuration["Entrypoint"] == ["foldserve"]
    assert configuration["Cmd"] == ["serve"]
    assert "/readyz" in configuration["Healthcheck"]["Test"][-1]
    assert not configuration.get("Volumes")


def test_image_says_what_it_is_and_where_it_comes_from(configuration: Mapping[str, Any]) -> None:
    prefix = "org.opencontainers.image."
    said = {k.removeprefix(prefix): v for k, v in configuration["Labels"].items() if k.startswith(prefix)}
    assert (said["title"], said["licenses"], said["version"]) == ("foldserve", "Apache-2.0", __version__)
    assert all(said[name] for name in ("description", "base.name"))
    # Those two only where it was built in a clone of the repository.
    assert re.fullmatch(r"[0-9a-f]{40}|", said.get("revision", ""))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+|", said.get("created", ""))


def test_digits_are_recognised_with_nothing_mounted(served: Served) -> None:
    assert DIGITS, "tests/digits holds no PNG file"
    for picture in DIGITS[:10]:
        answer = served.predict(picture.read_bytes())
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["label"] == picture.name.split("_")[0]


def test_store_that_is_mounted_takes_the_place_of_the_digits(image: Image, tmp_path: Path) -> None:
    copied(tmp_path, "numerals")
    tmp_path.chmod(0o755)
    with serving(image, tmp_path) as running:
        assert [model["model"] for model in running.get("/v1/models").json()["models"]] == ["numerals"]


@pytest.mark.parametrize("command", [["models", "--json"], ["layers", "digits", "--json"]], ids=" ".join)
def test_commands_of_the_image_read_its_store(served: Served, command: list[str]) -> None:
    done = served.container.run("foldserve", *command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_service_runs_as_the_first_process_and_not_as_root(served: Served) -> None:
    status = served.container.run("cat", "/proc/1/status").stdout
    assert int(served.container.run("id", "-u").stdout) != 0
    assert "foldserve" in served.container.run("cat", "/proc/1/cmdline").stdout
    assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE), status


@pytest.mark.parametrize("place", ["/opt/foldserve/written", "/models/written", "/written", "/etc/written"])
def test_root_file_system_is_read_only(served: Served, place: str) -> None:
    refused = served.container.run("touch", place)
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_dev_shm_is_small_and_hardly_used(served: Served) -> None:
    for picture in DIGITS:
        assert served.predict(picture.read_bytes()).status_code == 200
    size, used = served.container.run(
        "df", "--output=size,used", "--block-size=1", "/dev/shm"
    ).stdout.split()[-2:]
    assert int(size) == SHM_MIB * 2**20
    assert int(used) < 2**20


def test_arena_larger_than_dev_shm_is_filled(image: Image, tmp_path: Path) -> None:
    """Rows pass to the engine through memory that lies in no file system."""
    copied(tmp_path)
    tmp_path.chmod(0o755)
    pixels = 8 * 8
    rows = 2 * SHM_MIB * 256  # one slot of 4 KiB each: twice what /dev/shm holds
    limits = {"FOLDSERVE_MAX_REQUEST_ROWS": str(rows), "FOLDSERVE_MAX_WAITING_ROWS": str(rows)}
    with serving(image, tmp_path, **limits) as running:
        answer = running.logits(bytes(rows * pixels), "application/octet-stream", dtype="uint8")
        assert answer.shape == (rows, 10)


def test_health_check_tells_a_serving_container_from_one_that_does_not_answer(
    served: Served, configuration: Mapping[str, Any]
) -> None:
    check = configuration["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert "curl" not in " ".join(check)
    assert served.container.run(*check[1:], FOLDSERVE_PORT=str(served.port)).returncode == 0
    assert served.container.run(*check[1:], FOLDSERVE_PORT=str(free_port())).returncode != 0


def test_containers_of_a_test_run_that_is_killed_end_with_it(image: Image) -> None:
    if isinstance(image, DockerImage):
        pytest.skip("a container of Docker's outlives who started it")
    with subprocess.Popen([sys.executable, "-c", STARTING_ONE], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        pid, files = run.stdout.readline().split()
        first = Path("/proc", pid)
        assert "foldserve" in (first / "cmdline").read_text()
        run.kill()
    ran("buildah", "rm", files)
    until(lambda: not first.exists() or "State:\tZ" in (first / "status").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_service_with_exit_code_zero(image: Image, number: int) -> None:
    with serving(image) as running:
        running.container.send_signal(number)
        assert running.container.wait(PATIENCE) == 0
