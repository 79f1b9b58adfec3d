"""Requests and responses held against the published OpenAPI file of the protocol.

The file is taken as it is, with these relaxations: its paths are written with a literal `$`, and
`data` is demanded also of tensors that are binary.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import requests
import yaml

from tests.clients.sent import Sent, begin

PUBLISHED = yaml.safe_load((Path(__file__).parent / "open_inference_rest.yaml").read_text(encoding="utf-8"))
LENGTH = "Inference-Header-Content-Length"


def relaxed() -> dict[str, Any]:
    """The published file, in which a binary tensor needs no data."""
    root: dict[str, Any] = copy.deepcopy(PUBLISHED)
    for name in ("request_input", "response_output"):
        schema = root["components"]["schemas"][name]
        schema["required"].remove("data")
        binary = {
            "required": ["parameters"],
            "properties": {"parameters": {"required": ["binary_data_size"]}},
        }
        schema["anyOf"] = [{"required": ["data"]}, binary]
    return root


def validate(instance: Any, name: str) -> None:
    """Raise unless `instance` is what the schema of that name says."""
    root = {**relaxed(), "$ref": f"#/components/schemas/{name}"}
    jsonschema.Draft202012Validator(root).validate(instance)


def documented(path: str, method: str, status: int) -> str | None:
    """The name of the schema that the file gives for an answer; fails where it has no such answer."""
    written = path.replace("digits", "${MODEL_NAME}").replace("/versions/1", "/versions/${MODEL_VERSION}")
    answer = PUBLISHED["paths"][written][method]["responses"][str(status)]
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref", "").rpartition("/")[2] or None


def describes(sent: Sent) -> None:
    """Every GET of the file."""
    gets = [path for path, item in PUBLISHED["paths"].items() if "get" in item]
    assert len(gets) == 5
    for written in gets:
        path = written.replace("${MODEL_NAME}", "digits").replace("${MODEL_VERSION}", "1")
        answer = requests.get(sent.address + path, allow_redirects=False, timeout=60)
        name = documented(path, "get", answer.status_code)
        if name:
            validate(answer.json(), name)


def refuses(sent: Sent) -> None:
    """What the file says of errors."""
    answer = requests.post(f"{sent.address}/v2/models/digits/versions/1/infer", data=b"{}", timeout=60)
    assert answer.status_code == 400
    name = documented("/v2/models/digits/versions/1/infer", "post", 400)
    assert name == "inference_error_response"
    validate(answer.json(), name)
    assert isinstance(answer.json()["error"], str)


def infers(sent: Sent) -> None:
    """Requests in JSON and binary, and their answers in both."""
    path = "/v2/models/digits/versions/1/infer"
    given: dict[str, Any] = {"name": "image", "shape": list(sent.inputs.shape), "datatype": "FP32"}
    tail = sent.inputs.tobytes()
    for is_binary in (False, True):
        one = given | (
            {"parameters": {"binary_data_size": len(tail)}} if is_binary else {"data": sent.inputs.tolist()}
        )
        for asked in ({"binary_data": False}, {"binary_data": True}, {"classification": 2}):
            root = {"id": "seven", "inputs": [one], "outputs": [{"name": "logits", "parameters": asked}]}
            validate(root, "inference_request")
            answer = post(sent.address + path, root, tail if is_binary else b"")
            name = documented(path, "post", answer.status_code)
            assert name == "inference_response"
            length = int(answer.headers.get(LENGTH, len(answer.content)))
            validate(requests.compat.json.loads(answer.content[:length]), name)


def post(address: str, root: dict[str, Any], tail: bytes) -> Any:
    """The answer to a document and what follows it."""
    document = requests.compat.json.dumps(root).encode()
    return requests.post(address, data=document + tail, headers={LENGTH: str(len(document))}, timeout=60)


def examples(_: Sent) -> None:
    """The file can refuse: what is wrong is wrong by it too."""
    wrong = [
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "inference_request"),
        ({"inputs": [{"name": "x", "shape": ["1"], "datatype": "FP32", "data": [1]}]}, "inference_request"),
        ({"model_name": "x"}, "inference_response"),
        ({"name": "x", "version": "1"}, "metadata_server_response"),
    ]
    for instance, name in wrong:
        try:
            validate(instance, name)
        except jsonschema.ValidationError:
            continue
        raise AssertionError(f"{instance} passed")


if __name__ == "__main__":
    begin({check.__name__: check for check in (describes, refuses, infers, examples)})
