"""The manifests: what Kubernetes would accept, and what the service keeps of them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from service.engine.supervisor import _GRACE_S
from service.settings import PREFIX, Settings

from .conftest import ROOT, published, read

if TYPE_CHECKING:
    from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

FOLDER = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(FOLDER.rglob("*.yaml"))
NAMES = {"Deployment", "Service", "PodDisruptionBudget", "ServiceMonitor"}
SETTINGS = Settings.model_construct()


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """By kind."""
    return {document["kind"]: document for file in read(*MANIFESTS) for document in file}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> Any:
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


# --- the published schemas


def test_every_manifest_is_what_the_published_schemas_say(manifests: dict[str, Any]) -> None:
    assert set(manifests) == NAMES
    assert published("kubernetes", *MANIFESTS) == [[[]]] * len(MANIFESTS)


BREAKING = {
    "misspelled key": ("Deployment", "readinessProbe", "readynessProbe"),
    "value of another kind": ("Deployment", "failureThreshold: 30", "failureThreshold: often"),
    "unknown word": ("PodDisruptionBudget", "  selector:", "  selectors:"),
    "key that is missing": ("Service", "      port: 8000\n", ""),
    "misspelled key of the operator's": ("ServiceMonitor", "interval", "intervall"),
    "duration that is none": ("ServiceMonitor", "15s", "15 seconds"),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """About each of them."""
    folder = tmp_path_factory.mktemp("broken")
    texts = [file.read_text(encoding="utf-8") for file in MANIFESTS]
    files = {name: folder / f"{number}.yaml" for number, name in enumerate(BREAKING)}
    for name, (kind, said, instead) in BREAKING.items():
        (text,) = (text for text in texts if f"kind: {kind}\n" in text)
        assert said in text
        files[name].write_text(text.replace(said, instead), encoding="utf-8")
    found = published("kubernetes", *files.values())
    return {name: said for name, (said,) in zip(BREAKING, found, strict=True)}


@pytest.mark.parametrize("name", BREAKING)
def test_broken_manifest_is_found_out(complaints: dict[str, list[str]], name: str) -> None:
    assert complaints[name]


# --- what belongs together


def test_all_select_the_pods_of_the_deployment(manifests: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    monitored = manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= manifests["Service"]["metadata"]["labels"].items()


def test_ports_are_those_that_the_service_listens_on(manifests: dict[str, Any], container: Any) -> None:
    (port,) = container["ports"]
    (offered,) = manifests["Service"]["spec"]["ports"]
    (scraped,) = manifests["ServiceMonitor"]["spec"]["endpoints"]
    assert port["containerPort"] == SETTINGS.port
    assert offered["targetPort"] == port["name"]
    assert scraped["port"] == offered["name"]


def test_every_path_is_answered(manifests: dict[str, Any], container: Any, service: Server) -> None:
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {container["ports"][0]["name"]}
    assert [probe["path"] for probe in probes] == ["/livez", "/readyz", "/livez"]
    (scraped,) = manifests["ServiceMonitor"]["spec"]["endpoints"]
    for path in (*(probe["path"] for probe in probes), scraped["path"]):
        assert service.get(path).status_code == 200, path


def test_budget_lets_a_node_be_emptied_and_leaves_a_replica(manifests: dict[str, Any]) -> None:
    replicas = manifests["Deployment"]["spec"]["replicas"]
    budget = manifests["PodDisruptionBudget"]["spec"]
    assert 0 < budget["maxUnavailable"] < replicas
    assert manifests["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


# --- what the service needs


def test_pod_is_given_the_time_that_the_drain_may_take(pod: Any, container: Any) -> None:
    """First the pause in which others stop sending to it, then the drain, then the engine's end."""
    program, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    longest = int(pause) + SETTINGS.drain_timeout_s + 2 * _GRACE_S
    assert longest < pod["terminationGracePeriodSeconds"] <= longest + 10


def test_supervisor_replaces_the_silent_before_kubernetes_kills_all(container: Any) -> None:
    probe = container["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > SETTINGS.hang_timeout_s


def test_namespace_with_a_service_of_this_name_does_not_change_the_settings(pod: Any) -> None:
    """Kubernetes would set FOLDSERVE_PORT=tcp://..., and FOLDSERVE_SERVICE_HOST, which is no setting."""
    assert pod["enableServiceLinks"] is False


def test_environment_holds_settings_only(container: Any) -> None:
    names = [variable["name"] for variable in container["env"]]
    assert {name.removeprefix(PREFIX).lower() for name in names} <= set(Settings.model_fields)


def test_pod_has_no_more_rights_than_the_image_needs(pod: Any, container: Any) -> None:
    (user,) = re.findall(r"^USER (\d+:\d+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    security = pod["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_limits_are_what_is_requested(container: Any) -> None:
    """The threads of a computation follow the limit of CPUs; without one they would follow the node."""
    assert container["resources"]["limits"] == container["resources"]["requests"]
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_service_fits_into_the_memory_with_room_to_load(container: Any, service: Server) -> None:
    given = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
    metrics = service.metrics()
    resident = [value for key, value in metrics.items() if key[0].endswith("resident_memory_bytes")]
    assert 0 < sum(resident) < given / 2, json.dumps(resident)
