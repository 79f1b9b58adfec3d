"""What others published, asked about our files: Kubernetes, its Prometheus operator, compose, PromQL.

Run in the environment of `deploy.txt`; prints JSON.
usage: python -m tests.deploy.published read|kubernetes|compose|promql FILE...
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KUBERNETES = ("1.30", "1.33", "1.37")


def documents(path: str) -> list[Any]:
    import yaml

    return list(yaml.safe_load_all(Path(path).read_text(encoding="utf-8")))


def kubernetes_complaints(document: dict[str, Any]) -> list[str]:
    """What the API of these versions of Kubernetes would refuse, misspelled keys included."""
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        return operator_complaints(document)
    import kubernetes_validate

    found = []
    for version in KUBERNETES:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {'.'.join(map(str, error.path))}: {error.message}")
    return found


def operator_complaints(document: dict[str, Any]) -> list[str]:
    """The models drop keys that the operator's schema does not have, so what is left says which."""
    from cloudcoil.models.prometheus_operator import v1
    from pydantic import ValidationError

    try:
        understood = getattr(v1, document["kind"]).model_validate(document)
    except ValidationError as error:
        return [str(error)]
    kept = understood.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [] if kept == document else [f"understood as {json.dumps(kept)}"]


def compose_complaints(path: str) -> list[str]:
    """With the default of every variable."""
    from compose_spec import PyOptions

    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", Path(path).read_text(encoding="utf-8"))
    try:
        PyOptions(apply_merge=True).from_yaml(text).validate()
    except ValueError as error:
        return [str(error)]
    return []


def selected(query: str) -> list[dict[str, Any]]:
    """The series that a query selects: their names, and the labels that it asks for."""
    import promql_parser as promql

    found: list[dict[str, Any]] = []

    def look(part: Any) -> bool:
        if isinstance(part, promql.MatrixSelector):
            part = part.vector_selector
        if isinstance(part, promql.VectorSelector):
            labels = [matcher.name for matcher in part.matchers.matchers]
            found.append({"name": part.name, "labels": labels})
        return True

    promql.walk(promql.parse(query), look)
    return found


ANSWERS: dict[str, Callable[[str], Any]] = {
    "read": documents,
    "kubernetes": lambda path: [kubernetes_complaints(document) for document in documents(path)],
    "compose": compose_complaints,
    "promql": lambda path: [selected(query) for query in json.loads(Path(path).read_text())],
}


if __name__ == "__main__":
    question, *paths = sys.argv[1:]
    json.dump([ANSWERS[question](path) for path in paths], sys.stdout)
