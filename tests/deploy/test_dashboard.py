"""The Grafana dashboard asks for nothing that the service does not count."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .conftest import ROOT, published, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.server import Server

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "foldserve.json").read_text(encoding="utf-8"))
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
GIVEN_BY_PROMETHEUS = {"job", "instance"}
VARIABLES = {"$__rate_interval": "5m"}


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def written_out(query: str) -> str:
    """With a duration in place of Grafana's; its other variables stand within strings."""
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    return query


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each panel, the series that its queries select, as Prometheus' language has it."""
    asked = [(title, written_out(query)) for title, panel in PANELS.items() for query in queries(panel)]
    file = tmp_path_factory.mktemp("queries") / "queries.json"
    file.write_text(json.dumps([query for _, query in asked]), encoding="utf-8")
    found: dict[str, Any] = {title: [] for title in PANELS}
    for (title, _), series in zip(asked, published("promql", file)[0], strict=True):
        assert series, title
        found[title] += series
    return found


@pytest.fixture(scope="module")
def served(service: Server) -> dict[str, set[str]]:
    """The labels of every sample of a running service, by name."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples}


@pytest.mark.parametrize("title", PANELS)
def test_every_metric_and_label_of_a_panel_is_served(
    title: str, selected: dict[str, Any], served: dict[str, set[str]]
) -> None:
    for series in selected[title]:
        assert series["name"] in served
        assert set(series["labels"]) - GIVEN_BY_PROMETHEUS <= served[series["name"]], series["name"]


@pytest.mark.parametrize("title", PANELS)
def test_every_label_that_is_grouped_by_or_shown_is_there(title: str, served: dict[str, set[str]]) -> None:
    for target in PANELS[title]["targets"]:
        names = re.findall(r"foldserve_\w+", target["expr"])
        known = GIVEN_BY_PROMETHEUS.union(*(served[name] for name in names))
        grouped = {
            label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")
        }
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert grouped <= known
        assert shown <= grouped


def test_query_that_is_not_well_formed_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "queries.json"
    file.write_text(json.dumps(["rate(foldserve_rows_total[5m)"]), encoding="utf-8")
    with pytest.raises(AssertionError, match="unexpected character"):
        published("promql", file)


def test_variables_are_filled_from_metrics_that_are_served(served: dict[str, set[str]]) -> None:
    asked = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
    assert len(asked) == 2
    for query in asked:
        metric, label = re.fullmatch(r"label_values\((\w+)[^,]*, (\w+)\)", query).groups()  # type: ignore[union-attr]
        assert label in GIVEN_BY_PROMETHEUS | served[metric]


def test_dashboard_is_found_and_has_a_source() -> None:
    sources, providers = (
        read(GRAFANA / "provisioning" / kind)[0][0]
        for kind in ("datasources/prometheus.yml", "dashboards/foldserve.yml")
    )
    assert [source["type"] for source in sources["datasources"]] == ["prometheus"]
    assert {panel["datasource"]["uid"] for panel in PANELS.values()} == {"${datasource}"}
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    folder = providers["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in compose
    assert f"{folder}/foldserve.json" in compose


def test_panels_are_named_explained_and_do_not_overlap() -> None:
    places = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in (panel["gridPos"] for panel in PANELS.values())
    ]
    assert len(PANELS) == len(DASHBOARD["panels"])
    assert sum(map(len, places)) == len(set().union(*places))
    assert all(panel["description"] for panel in PANELS.values())
