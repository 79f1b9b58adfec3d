"""Whatever broke other servers of the Open Inference Protocol is refused, and harms nobody."""

from __future__ import annotations

import gzip
import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from .digits import Digits, encoded
from .infer import INFER, LENGTH, Response, binary, body, elements, post, tensor
from .problems import assert_no_insides
from .server import Server
from .wire import head, is_closed, reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from .server import Service

pytestmark = pytest.mark.e2e

ONE = np.zeros((1, 1, 8, 8), np.float32)
ROW = ONE.tobytes()
GOOD = tensor(ONE)
PNG = encoded(np.zeros((1, 8, 8), np.uint8))


class Case(NamedTuple):
    """One request that is refused."""

    given: tuple[bytes, dict[str, str]]
    status: int = 400
    detail: str = ""
    address: str = INFER


def infer(*inputs: dict[str, Any], tail: bytes = b"", **root: Any) -> Case:
    return Case(body(*inputs, tail=tail, **root))


def output(name: str = "logits", **parameters: Any) -> Case:
    return infer(GOOD, outputs=[{"name": name, "parameters": parameters}])


def raw(content: bytes, status: int = 400, **headers: str) -> Case:
    return Case((content, {name.replace("_", "-"): value for name, value in headers.items()}), status)


def untold(content: bytes) -> Case:
    """A raw request, without a document."""
    return Case((content, {LENGTH: "0"}))


def header(value: str, content: bytes = b"") -> Case:
    return Case((content or body(GOOD)[0], {LENGTH: value}))


def coded(content: bytes, coding: str, status: int = 400) -> Case:
    return Case((content, {"Content-Encoding": coding}), status)


def at(address: str, status: int = 404) -> Case:
    return Case(body(GOOD), status, address=address)


def with_value(text: str) -> Case:
    return raw(body(GOOD)[0].replace(b"0.0", text.encode(), 1))


def images(*contents: bytes, count: int = 2, datatype: str = "BYTES") -> Case:
    content = elements(contents)
    return infer(binary(content, [count], datatype), tail=content)


BOMB = bytes(200 << 20)
DEEP = b"[" * 5000 + b"0" + b"]" * 5000
CASES = {
    # the document
    "an empty body": raw(b""),
    "no JSON": raw(b"\x89PNG"),
    "lists nested 9,000 deep": raw(b'{"inputs":' + b"[" * 9_000),
    "data nested 5,000 deep": raw(body(GOOD | {"data": "X"})[0].replace(b'"X"', DEEP)),
    "objects nested 5,000 deep": raw(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "NaN": with_value("NaN"),
    "infinity": with_value("-Infinity"),
    "a number that overflows": with_value("1e999"),
    "a number that overflows float32": with_value("1e39"),
    "an integer of 400 digits": with_value("1" * 400),
    "a string among numbers": with_value('"0"'),
    "a boolean among numbers": with_value("true"),
    "null among numbers": with_value("null"),
    "no inputs": infer(),
    "two inputs": infer(GOOD, GOOD | {"name": "other"}),
    "an input twice": infer(GOOD, GOOD),
    "an unknown input": infer(GOOD | {"name": "../image"}),
    # shapes
    **{
        f"shape {shape}": infer(GOOD | {"shape": shape})
        for shape in (
            *([], [0, 1, 8, 8], [-1, 1, 8, 8], [1, 1, 8, -8], [1, 8, 8], [1, 64], [2, 1, 8, 8]),
            *([2**62, 2, 8, 8], [2**31, 2**31, 2**31, 2**31], [2**32, 1, 8, 8], [10**30, 1, 8, 8]),
            *([1.0, 1, 8, 8], ["1", 1, 8, 8], [True, 1, 8, 8], [1] * 20, None, "1", {"0": 1}),
        )
    },
    "more data than its shape": infer(GOOD | {"data": [0.0] * 65}),
    "less data than its shape": infer(GOOD | {"data": [0.0] * 63}),
    "data of another nesting": infer(GOOD | {"data": [[0.0] * 8] * 8}),
    "data under an escaped name": raw(body(GOOD)[0].replace(b'"data"', rb'"d\u0061ta"')),
    "data among the parameters": infer(GOOD, parameters={"data": [0.0]}),
    "data twice": raw(body(GOOD)[0].replace(b'"data"', b'"data": [1.0], "data"')),
    "numbers on the wrong side of a bracket": raw(
        body(GOOD | {"data": ONE.tolist()})[0].replace(b"[0.0", b"0.0[", 1)
    ),
    "data that is no list": infer(GOOD | {"data": 0}),
    "513 rows": Case(body(GOOD | {"shape": [513, 1, 8, 8]}), 413),
    # datatypes
    **{
        f"datatype {datatype}": infer(GOOD | {"datatype": datatype})
        for datatype in ("FP64", "FP16", "BF16", "BYTES", "BOOL", "INT8", "STRING", "", None, 3)
    },
    "fractions as UINT8": infer(GOOD | {"datatype": "UINT8"}),
    "256 as UINT8": infer(GOOD | {"datatype": "UINT8", "data": [256] * 64}),
    "strings as FP32": infer(GOOD | {"data": ["0"] * 64}),
    # binary tensors
    "a header beyond the body": header("100000"),
    "a header below 0": header("-1"),
    "a header of a billion digits' length": header("9" * 5000),
    "a header in words": header("all"),
    "a header that cuts the document": header("10"),
    "bytes missing": infer(binary(ROW, ONE.shape, "FP32"), tail=ROW[:-1]),
    "bytes left over": infer(binary(ROW, ONE.shape, "FP32"), tail=ROW + b"\0"),
    "a size that overflows": infer(GOOD | {"data": None, "parameters": {"binary_data_size": 2**63}}),
    "a size below 0": infer(GOOD | {"data": None, "parameters": {"binary_data_size": -256}}),
    "data and binary data": infer(GOOD | {"parameters": {"binary_data_size": 256}}, tail=ROW),
    "bytes of another datatype": infer(binary(ROW, ONE.shape, "UINT8"), tail=ROW),
    "NaN in binary": infer(binary(ROW, ONE.shape, "FP32"), tail=b"\xff" * 256),
    "a raw request of two rows": untold(ROW * 2),
    "a raw request of half a row": untold(ROW[:128]),
    # BYTES
    "an element beyond the body": infer(
        binary(b"\xff\xff\xff\xffabc", [1], "BYTES"), tail=b"\xff\xff\xff\xffabc"
    ),
    "an element too few": images(PNG),
    "an element too many": images(PNG, PNG, PNG),
    "half a length": infer(binary(b"\0\0", [1], "BYTES"), tail=b"\0\0"),
    "an element that is no image": images(PNG, b"GIF89a"),
    "base64 that is none": infer(GOOD | {"shape": [1], "datatype": "BYTES", "data": ["***"]}),
    "an element that is a number": infer(GOOD | {"shape": [1], "datatype": "BYTES", "data": [1]}),
    "images as a matrix": infer(GOOD | {"shape": [1, 2], "datatype": "BYTES", "data": ["", ""]}),
    "a billion images": Case(body(GOOD | {"shape": [10**9], "datatype": "BYTES", "data": []}), 413),
    # outputs
    "an unknown output": output("probabilities"),
    "an output twice": infer(GOOD, outputs=[{"name": "logits"}, {"name": "logits"}]),
    "more classes than there are": output(classification=11),
    "0 classes": output(classification=0),
    "classes below 0": output(classification=-1),
    "classes that overflow": output(classification=2**64),
    "half a class": output(classification=1.5),
    "shared memory": output(shared_memory_region="/dev/shm/x", shared_memory_byte_size=40),
    # parameters
    "a timeout below 0": infer(GOOD, parameters={"timeout": -1}),
    "a timeout in words": infer(GOOD, parameters={"timeout": "soon"}),
    "a parameter that is a list": infer(GOOD, parameters={"a": []}),
    "an id that is a number": infer(GOOD, id=7),
    # codings
    "an unknown coding": coded(b"x", "br", 415),
    "two codings": coded(gzip.compress(gzip.compress(body(GOOD)[0])), "gzip, gzip", 415),
    "no gzip": coded(body(GOOD)[0], "gzip"),
    "half a gzip": coded(gzip.compress(body(GOOD)[0])[:-9], "gzip"),
    "zlib as gzip": coded(zlib.compress(body(GOOD)[0]), "gzip"),
    "a gzip bomb": coded(gzip.compress(BOMB), "gzip", 413),
    "a deflate bomb": coded(zlib.compress(BOMB), "deflate", 413),
    "a body over the limit": raw(bytes((32 << 20) + 1), 413),
    # media types
    "an image": raw(PNG, 415, Content_Type="image/png"),
    "a form": raw(b"--a--", 415, Content_Type="multipart/form-data; boundary=a"),
    # addresses
    "an unknown model": at("/v2/models/nobody/infer"),
    "a model that is ..": at("/v2/models/%2e%2e/infer"),
    "a model that is ../..": at("/v2/models/%2e%2e%2f%2e%2e/infer"),
    "a model with NUL": at("/v2/models/digits%00/infer"),
    "a model of 10,000 letters": at(f"/v2/models/{'x' * 10_000}/infer"),
    "a model that is no UTF-8": at("/v2/models/%ff/infer"),
    "version 0": at("/v2/models/digits/versions/0/infer"),
    "version 01": at("/v2/models/digits/versions/01/infer"),
    "version 2": at("/v2/models/digits/versions/2/infer"),
    "version -1": at("/v2/models/digits/versions/-1/infer"),
    "version 1.0": at("/v2/models/digits/versions/1.0/infer"),
    "a version of 5,000 digits": at(f"/v2/models/digits/versions/{'9' * 5000}/infer"),
    "an unknown verb": at("/v2/models/digits/predict"),
    "a model without a name": at("/v2/models//infer"),
}


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found) == ["error"]
    assert 10 < len(found["error"]) < 20_000
    assert_no_insides(found)


def assert_serves(service: Service, digits: Digits) -> None:
    found = Response(post(service, body(tensor(digits.inputs[:3]))))
    assert found.logits.argmax(axis=1).tolist() == digits.logits[:3].argmax(axis=1).tolist()


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_used_is_refused_with_its_reason(service: Service, digits: Digits, name: str) -> None:
    case = CASES[name]
    assert_refused(post(service, case.given, case.address), case.status)
    assert_serves(service, digits)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_refused_in_the_protocols_words(service: Service, method: str) -> None:
    answer = service.http.request(method, INFER)
    assert_refused(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_refusals_are_counted_as_failures_of_the_version(service: Service) -> None:
    def failed() -> int:
        answer = service.get("/v2/models/digits/stats").json()
        return int(answer["model_stats"][0]["inference_stats"]["fail"]["count"])

    before = failed()
    for name in ("NaN", "an unknown output", "a gzip bomb"):
        post(service, CASES[name].given)
    post(service, body(GOOD), "/v2/models/nobody/infer")
    assert failed() == before + 3


def test_bad_requests_among_good_ones_spoil_none(service: Service, digits: Digits) -> None:
    quick = [case for case in CASES.values() if len(case.given[0]) < 100_000]

    def asked(number: int) -> None:
        case = quick[number % len(quick)]
        if number % 2:
            assert_refused(post(service, case.given, case.address), case.status)
        else:
            assert_serves(service, digits)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(asked, range(400)))


def test_a_gigabyte_that_is_announced_is_refused_before_it_comes(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(head(f"Content-Length: {1 << 30}", address=INFER))
        answer = reply(connection)
        assert (answer.status, list(answer.body)) == (413, ["error"])
        assert is_closed(connection)


def test_bodies_that_come_too_slowly_are_refused_in_the_protocols_words() -> None:
    with Server.start(body_timeout_s=1) as strict:
        with strict.connect() as connection:
            lines = f"POST {INFER} HTTP/1.1", "Host: localhost", "Content-Length: 1000", "", '{"inputs":'
            connection.sendall("\r\n".join(lines).encode())
            answer = reply(connection)
            assert (answer.status, list(answer.body)) == (408, ["error"])
            assert is_closed(connection)
        assert strict.stop() == 0


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server that takes small bodies only."""
    with Server.start(max_body_mb=0.01) as started:
        yield started
        assert started.stop() == 0, started.log


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_the_limit_holds_for_what_was_compressed(small: Server, digits: Digits, coding: str) -> None:
    press = gzip.compress if coding == "gzip" else zlib.compress
    inputs = digits.inputs[:100]
    content = inputs.tobytes()
    plain, headers = body(binary(content, inputs.shape, "FP32"), tail=content)
    assert len(press(plain)) < 10 * 1024 < len(plain)
    assert_refused(post(small, (press(plain), headers | {"Content-Encoding": coding})), 413)
    assert_serves(small, digits)


def test_errors_outside_the_protocol_stay_problems(service: Service) -> None:
    for address in ("/v1/models/nobody", "/v2x", "/v"):
        assert service.get(address).headers["content-type"] == "application/problem+json"
    assert json.loads(service.get("/v2/x").content) == {"error": "There is nothing at this address"}
