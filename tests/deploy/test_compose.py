"""compose.yaml, and the Prometheus and Grafana that it starts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from service.engine.supervisor import _GRACE_S
from service.settings import PREFIX, Settings

from .conftest import ROOT, published, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

COMPOSE = ROOT / "compose.yaml"
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yml"
PROFILES = ["cpu", "gpu"]
SETTINGS = Settings.model_construct()


@pytest.fixture(scope="module")
def services() -> Any:
    return read(COMPOSE)[0][0]["services"]


def of_profile(services: Any, profile: str) -> dict[str, Any]:
    return {name: service for name, service in services.items() if profile in service["profiles"]}


def ours(services: Any, profile: str) -> Any:
    (service,) = (s for s in of_profile(services, profile).values() if "build" in s)
    return service


def test_file_is_what_the_compose_specification_says() -> None:
    assert published("compose", COMPOSE) == [[]]


@pytest.mark.parametrize(("said", "instead"), [("read_only:", "readonly:"), ("75s", "75 secs")])
def test_broken_file_is_found_out(tmp_path: Path, said: str, instead: str) -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert said in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(said, instead), encoding="utf-8")
    assert published("compose", broken)[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_serves_on_its_device_and_watches(services: Any, profile: str) -> None:
    assert {"prometheus", "grafana"} < set(of_profile(services, profile))
    service = ours(services, profile)
    assert service["environment"]["FOLDSERVE_DEVICE"] == {"cpu": "cpu", "gpu": "cuda"}[profile]
    devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert [device["capabilities"] for device in devices] == ([["gpu"]] if profile == "gpu" else [])


@pytest.mark.parametrize("profile", PROFILES)
def test_service_runs_without_rights_and_ends_in_its_own_time(services: Any, profile: str) -> None:
    service = ours(services, profile)
    assert (service["read_only"], service["tmpfs"], service["shm_size"]) == (True, ["/tmp"], "64mb")
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    longest = SETTINGS.drain_timeout_s + 2 * _GRACE_S
    assert longest < int(service["stop_grace_period"].removesuffix("s")) <= longest + 10


@pytest.mark.parametrize("profile", PROFILES)
def test_environment_holds_settings_only(services: Any, profile: str) -> None:
    names = {name.removeprefix(PREFIX).lower() for name in ours(services, profile)["environment"]}
    assert names <= set(Settings.model_fields)


def test_every_port_is_open_to_this_machine_only(services: Any) -> None:
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_mounted_folder_is_there(services: Any) -> None:
    mounts = {mount for service in services.values() for mount in service["volumes"]}
    sources = {re.sub(r"\$\{\w+:-(.*)\}", r"\1", mount.rpartition(":/")[0]) for mount in mounts}
    assert {"./model_store", "prometheus", "grafana"} < sources
    assert [source for source in sources if source.startswith(".") and not (ROOT / source).exists()] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_prometheus_scrapes_the_service(services: Any, profile: str, service: Server) -> None:
    (job,) = read(PROMETHEUS)[0][0]["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert name in ours(services, profile)["networks"]["default"]["aliases"]
    assert int(port) == SETTINGS.port
    assert (
        service.get("/metrics", Host=target).status_code == 200
    )  # where Prometheus looks if nothing is said
