"""No error says where the service lies, what it is made of, or what was sent to it."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from .digits import BOUNDARY, JSON, MULTIPART, OCTETS, encoded, multipart, npy
from .infer import LENGTH, binary, body, post, tensor
from .server import NPY, ROOT
from .test_bad_input import CASES as PREDICTIONS
from .test_bad_input import sent
from .test_infer_refusals import CASES as INFERENCES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from .server import Service

pytestmark = pytest.mark.e2e

VALUE, TEXT, SECRET = 86753.09375, "forget-me-not-7421", "Bearer forget-this-key-too-7421"
"""In what is sent; no error may repeat them."""
PLACES = (str(ROOT), str(Path.home()), tempfile.gettempdir(), "/proc/", "/dev/shm", "/usr/", "/opt/", "memfd")
CODE = r'Traceback|File "|\.py\b|site-packages|model_store|safetensors|\.so\b|line \d+, in |0x[0-9a-f]{6,}'
KINDS = r"<class|<function|object at |Error\(|errno|numpy\.|pydantic|starlette|uvicorn|asyncio"
INSIDES = re.compile("|".join([*map(re.escape, PLACES), CODE, KINDS]))
ROWS = np.full((2, 1, 8, 8), VALUE, np.float32)
WRONG = np.where(np.arange(128).reshape(ROWS.shape) == 100, np.nan, ROWS).astype(np.float32)


class Given(NamedTuple):
    """A body with something secret in it, and with something wrong."""

    media_type: str
    content: bytes
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def infers() -> Iterator[Given]:
    """To infer."""
    text = {"name": "image", "shape": [1], "datatype": "BYTES"}
    for given in (
        body(tensor(ROWS, shape=[2, 1, 8, 7])),
        body(tensor(ROWS, datatype="UINT8")),
        body(tensor(ROWS, data=[VALUE, TEXT])),
        body(tensor(ROWS, data=[*[VALUE] * 127, 1e39])),
        body(text | {"data": [TEXT]}),
        body(text | {"data": [base64.b64encode(TEXT.encode()).decode()]}),
        body(tensor(ROWS), parameters={"timeout": TEXT}),
        body(tensor(ROWS), id={"a": TEXT}),
        body(binary(WRONG.tobytes(), WRONG.shape, "FP32"), tail=WRONG.tobytes()),
        body(binary(TEXT.encode(), [1], "BYTES"), tail=TEXT.encode()),
    ):
        yield Given(JSON, *given)
    yield Given(JSON, b'{"inputs": [' + str(VALUE).encode() + b", NaN]}", {LENGTH: TEXT})


def predicts() -> Iterator[Given]:
    """To predict."""
    png = encoded(np.zeros((1, 8, 8), np.uint8))
    yield Given("image/png", TEXT.encode())
    yield Given("image/png", png[:-20] + TEXT.encode())
    yield Given("image/jpeg", b"\xff\xd8\xff" + TEXT.encode())
    yield Given(MULTIPART, multipart([TEXT.encode()]))
    yield Given(MULTIPART, f"--{BOUNDARY}\r\n{TEXT}: {TEXT}\r\n\r\n{TEXT}".encode())
    yield Given(NPY, npy(WRONG))
    yield Given(NPY, npy(ROWS.astype(np.float64)))
    yield Given(NPY, npy(ROWS) + TEXT.encode())
    yield Given(NPY, npy(np.array([TEXT])))
    yield Given(OCTETS, WRONG.tobytes())
    yield Given(OCTETS, TEXT.encode())
    for inputs in (WRONG.tolist(), [VALUE], TEXT, [TEXT], [{"b64": TEXT}], [[[VALUE] * 8] * 7], {"a": TEXT}):
        yield Given(JSON, json.dumps({"inputs": inputs}).encode())
    yield Given(JSON, json.dumps([TEXT, VALUE]).encode())
    yield Given(JSON, f"{{'inputs': {VALUE}, {TEXT}".encode())
    yield Given(JSON, json.dumps(TEXT).encode())
    yield Given("text/plain", TEXT.encode())


BODIES = [*predicts(), *infers()]


def addresses(service: Service) -> list[tuple[str, str]]:
    """Every method of every address that is documented, and what stands beside them."""
    paths: dict[str, Any] = service.get("/openapi.json").json()["paths"]
    values = {"{model}": "digits", "{version}": "1", "{layer}": "bn1"}
    found = []
    for path, methods in paths.items():
        named = re.sub(r"\{\w+\}", lambda part: values[part[0]], path)
        found += [(method.upper(), named) for method in methods]
        found += [("DELETE", named), ("GET", f"{named}/%00"), ("POST", f"{named}?x={TEXT}&top_k={VALUE}")]
    return found


def assert_says_nothing(answer: httpx.Response) -> None:
    said = answer.text + str(answer.headers)
    assert not INSIDES.search(said), said[:2000]
    for secret in (str(VALUE), str(VALUE)[:7], TEXT, SECRET[7:], "nan,", "inf,"):
        assert secret not in answer.text, said[:2000]
    assert len(answer.content) < 20_000


def test_no_error_repeats_a_value_or_shows_the_inside(service: Service) -> None:
    errors = 0
    for method, address in addresses(service):
        given = BODIES if method == "POST" else BODIES[:1]
        for media_type, content, headers in given:
            answer = service.http.request(
                method,
                address,
                content=content,
                headers={"Content-Type": media_type, "Authorization": SECRET, **headers},
            )
            assert answer.status_code != 500, (method, address, media_type, content[:100])
            if answer.status_code >= 400:
                errors += 1
                assert_says_nothing(answer)
    assert errors > 300


def test_no_refusal_that_is_tested_elsewhere_does(service: Service) -> None:
    answers = [sent(service, case) for case in PREDICTIONS.values()]
    answers += [post(service, case.given, case.address) for case in INFERENCES.values()]
    assert all(answer.status_code >= 400 for answer in answers)
    for answer in answers:
        assert not INSIDES.search(answer.text + str(answer.headers)), answer.text[:2000]


@pytest.mark.parametrize(
    "said",
    [
        'Traceback (most recent call last):\n  File "x", line 1, in f',
        f"[Errno 2] No such file or directory: '{ROOT}/x'",
        "/opt/foldserve/lib/python3.11/site-packages/x",
        "<object object at 0x7f2aec5284d0>",
        "cannot reshape: ValueError(1)",
    ],
)
def test_what_is_looked_for_is_what_errors_of_others_say(said: str) -> None:
    assert INSIDES.search(said)
