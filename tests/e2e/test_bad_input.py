"""Whatever cannot be used is refused with its own reason, and harms nobody else."""

from __future__ import annotations

import base64
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from .digits import BOUNDARY, JSON, MULTIPART, OCTETS, Digits, as_json, b64_json, encoded, multipart, npy
from .problems import assert_problem
from .server import NPY

if TYPE_CHECKING:
    import httpx

    from .server import Service

pytestmark = pytest.mark.e2e

PREDICT = "/v1/models/digits/predict"
LAYERS = "/v1/models/digits/layers"
BLANK = np.zeros((1, 1, 8, 8), np.uint8)
FLOATS = BLANK.astype(np.float32)
PNG, JPEG = encoded(BLANK[0]), encoded(BLANK[0], "JPEG")
IMAGE = PNG.index(b"IDAT")


class Case(NamedTuple):
    """One request to predict that is refused."""

    media_type: str | None
    body: bytes
    status: int
    slug: str
    detail: str
    query: str = ""
    address: str = PREDICT
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def image(body: bytes, detail: str, media_type: str = "image/png") -> Case:
    return Case(media_type, body, 400, "invalid-image", detail)


def numbers(media_type: str, body: bytes, detail: str, query: str = "") -> Case:
    return Case(media_type, body, 400, "invalid-tensor", detail, query)


def form(body: bytes, detail: str, media_type: str = MULTIPART) -> Case:
    return Case(media_type, body, 400, "invalid-input", detail)


def unread(media_type: str | None, detail: str, **headers: str) -> Case:
    return Case(media_type, PNG, 415, "unsupported-media-type", detail, headers=headers)


def query(given: str, detail: str) -> Case:
    return Case("image/png", PNG, 400, "invalid-query", detail, given)


def nowhere(address: str, slug: str, detail: str) -> Case:
    return Case("image/png", PNG, 404, slug, detail, address=address)


def too_large(media_type: str, body: bytes, detail: str, given: str = "") -> Case:
    return Case(media_type, body, 413, "too-large", detail, given)


def with_value(value: float) -> np.ndarray:
    rows = np.repeat(FLOATS, 3, axis=0)
    rows[1, 0, 2, 5] = value
    return rows


def broken(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


CASES = {
    # images
    "corrupt PNG": image(broken(PNG, IMAGE + 6), "^the PNG is corrupt: .*IDAT"),
    "truncated PNG": image(PNG[:-14], "^the PNG is truncated"),
    "PNG's signature alone": image(PNG[:8], "truncated"),
    "truncated JPEG": image(JPEG[:-30], "^the JPEG is truncated", "image/jpeg"),
    "JPEG without image": image(JPEG[:2] + JPEG[-2:], "JPEG", "image/jpeg"),
    "another format": image(b"GIF89a" + PNG[6:], "neither JPEG nor PNG"),
    "a bad image among good ones": image(
        multipart([PNG, PNG[:-14], PNG]), "image 1: the PNG is truncated", MULTIPART
    ),
    "an empty file among good ones": image(multipart([PNG, b""]), "image 1: the image is empty", MULTIPART),
    # JSON
    "not JSON": numbers(JSON, b"{", "not JSON"),
    "not UTF-8": numbers(JSON, b'{"inputs": ["\xff"]}', "not JSON"),
    "deep JSON": numbers(JSON, b"[" * 10_000, "not JSON"),
    "NaN in JSON": numbers(JSON, as_json([[[float("nan")] * 8] * 8]), "not JSON"),
    "a number beyond float32": numbers(JSON, as_json([[[1e39] * 8] * 8]), r"inputs\[0\].* float32"),
    "JSON without inputs": numbers(JSON, b'{"images": []}', "unknown key 'images'"),
    "JSON with more than inputs": numbers(JSON, b'{"inputs": [1], "x": 1}', "unknown key 'x'"),
    "a JSON list": numbers(JSON, b"[1]", "expected an object"),
    "no rows in JSON": numbers(JSON, as_json([]), "empty"),
    "one row not in a list": numbers(JSON, as_json(BLANK[0, 0].tolist()), "single row"),
    "wrong shape in JSON": numbers(JSON, as_json([[[0.5] * 8] * 7]), r"inputs\[0\].* length 7"),
    "ragged JSON": numbers(JSON, as_json([[[0] * 8] * 7 + [[0] * 7]]), r"inputs\[0\].*\[7\].* length 7"),
    "a string among numbers": numbers(JSON, as_json([[[0] * 7 + ["0"]] * 8]), r"\[0\]\[7\] is a string"),
    "uint8 above 255": numbers(JSON, as_json([[[256] * 8] * 8]), "outside 0..255", "dtype=uint8"),
    "uint8 with a fraction": numbers(JSON, as_json([[[0.5] * 8] * 8]), "fraction", "dtype=uint8"),
    "bad base64": Case(JSON, as_json([{"b64": "!"}]), 400, "invalid-image", r"inputs\[0\].b64 is not plain"),
    "bad image in base64": Case(JSON, b64_json([PNG, PNG[:40]]), 400, "invalid-image", r"inputs\[1\].b64: "),
    "images among numbers": numbers(
        JSON, as_json([BLANK[0].tolist(), {"b64": base64.b64encode(PNG).decode()}]), r"inputs\[1\] is an obj"
    ),
    # npy
    "not npy": numbers(NPY, PNG, "magic"),
    "truncated npy": numbers(NPY, npy(FLOATS)[:-1], "promises 256 bytes .* 255 follow"),
    "npy header alone": numbers(NPY, npy(FLOATS)[:40], "truncated"),
    "too long npy": numbers(NPY, npy(FLOATS) + b"\0", "257 follow"),
    "wrong shape in npy": numbers(NPY, npy(np.zeros((2, 1, 8, 7), np.uint8)), r"shape \[2, 1, 8, 7\]"),
    "no rows in npy": numbers(NPY, npy(FLOATS[:0]), "no rows"),
    "wrong dtype in npy": numbers(NPY, npy(FLOATS.astype(np.float64)), "dtype <f8, expected uint8"),
    "pickled npy": numbers(NPY, npy(FLOATS.astype(object)), "dtype"),
    "pickle": numbers(NPY, pickle.dumps([1]), "magic"),
    "NaN in npy": numbers(NPY, npy(with_value(np.nan)), "row 1 holds NaN"),
    "infinity in npy": numbers(NPY, npy(with_value(-np.inf)), "row 1 holds NaN or infinity"),
    "shape that overflows": numbers(
        NPY, npy(FLOATS).replace(b"(1, 1, 8, 8)", b"(%d, 1, 8, 8)" % 2**62)[:128], "over the limit|truncated"
    )._replace(status=413, slug="too-large"),
    # octets
    "octets of a wrong length": numbers(OCTETS, b"\0" * 255, "255 bytes .* 256 bytes"),
    "uint8 octets of a wrong length": numbers(OCTETS, b"\0" * 65, "65 bytes .* 64 bytes", "dtype=uint8"),
    "NaN in octets": numbers(OCTETS, with_value(np.nan).tobytes(), "row 1 holds NaN"),
    "numbers that would overflow": numbers(OCTETS, with_value(3e38).tobytes(), "row 1 holds numbers beyond"),
    # too much
    "too many octets": too_large(OCTETS, bytes(64 * 513), "513 rows .* limit of 512", "dtype=uint8"),
    "too many rows in npy": too_large(NPY, npy(np.zeros((513, 1, 8, 8), np.uint8)), "513 rows"),
    "too many rows in JSON": too_large(JSON, as_json([[[0] * 8] * 8] * 513), "513 rows"),
    "too many lists in JSON": too_large(JSON, as_json([[]] * 100_000), "more lists .* than 512 rows"),
    "too many files": too_large(MULTIPART, multipart([PNG] * 513), "more than 512 images"),
    # forms
    "empty body": Case("image/png", b"", 400, "invalid-input", "the body is empty"),
    "empty form": form(b"", "multipart"),
    "form without a boundary": form(multipart([PNG]), "boundary", "multipart/form-data"),
    "form with another boundary": form(multipart([PNG]), "multipart", MULTIPART + "x"),
    "form without files": form(f"--{BOUNDARY}--\r\n".encode(), "no file"),
    "form with a field": form(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--{BOUNDARY}--\r\n'.encode(),
        "multipart",
    ),
    "form with a part without a name": form(
        f"--{BOUNDARY}\r\n\r\nb\r\n--{BOUNDARY}--\r\n".encode(), "multipart body is malformed"
    ),
    "form in a charset that decodes nothing": form(
        multipart([PNG]), "charset", f"{MULTIPART}; charset=undefined"
    ),
    "form in a charset of host names": form(multipart([PNG]), "charset", f"{MULTIPART}; charset=punycode"),
    "form that stops inside its second file": form(multipart([PNG, PNG])[:-60], "multipart"),
    "form that stops before its end": form(multipart([PNG])[: -len(BOUNDARY) - 8], "multipart"),
    # media types
    "wrong content type": unread("text/plain", "'text/plain' is not read; .*image/jpeg, image/png"),
    "image of another type": unread("image/gif", "'image/gif'"),
    "no content type": unread(None, "content type .* is not read"),
    "gzip": unread("image/png", "compressed", **{"Content-Encoding": "gzip"}),
    # queries
    "unknown parameter": query("topk=3", "unknown parameter 'topk'"),
    "repeated parameter": query("top_k=3&top_k=4", "more than once: top_k"),
    "too many parameters": query("a&" * 15_000, "^more than 4 parameters were given$"),
    "endless parameter": query("a" * 30_000, "^unknown parameter 'a{64}...'$"),
    "endless parameter twice": query(f"{'a' * 9000}=1&{'a' * 9000}=1", "^parameter given .*: a{64}...$"),
    "top_k of 0": query("top_k=0", "top_k: .*greater than or equal to 1"),
    "top_k too high": query("top_k=1001", "top_k: .*less than or equal to 1000"),
    "top_k that is no number": query("top_k=many", "top_k: .*integer"),
    "top_k without a value": query("top_k=", "top_k: .*integer"),
    "unknown output": query("output=scores", "output: .*'labels', 'probabilities' or 'logits'"),
    "unknown dtype": query("dtype=float64", "dtype: .*'uint8' or 'float32'"),
    "timeout of 0": query("timeout_ms=0", "timeout_ms: .*greater than 0"),
    "a parameter that is not UTF-8": query("%ff=1", "unknown parameter"),
    # addresses
    "unknown model": nowhere("/v1/models/other/predict", "unknown-model", "no model 'other' is served"),
    "model with a path": nowhere("/v1/models/..%5c..%5cetc/predict", "unknown-model", "no model"),
    "unknown version": nowhere("/v1/models/digits/versions/99/predict", "unknown-version", "version 99"),
    "version 0": nowhere("/v1/models/digits/versions/0/predict", "unknown-version", "version"),
    "version 01": nowhere("/v1/models/digits/versions/01/predict", "unknown-version", "'01' is no version"),
    "version in words": nowhere("/v1/models/digits/versions/one/predict", "unknown-version", "'one' is no"),
    "version with a point": nowhere("/v1/models/digits/versions/1.0/predict", "unknown-version", "'1.0'"),
    "endless version": nowhere(
        f"/v1/models/digits/versions/{'9' * 5000}/predict", "unknown-version", "no ver"
    ),
    "unknown address": nowhere("/v1/models/digits/guess", "not-found", "nothing"),
}
GETS = {
    f"{LAYERS}/bn9": (404, "unknown-layer", "no norm 'bn9'"),
    f"{LAYERS}?vectors=1": (400, "invalid-query", "unknown parameter 'vectors'"),
    f"{LAYERS}/bn1?format=csv": (400, "invalid-query", "unknown parameter 'format'"),
    f"{LAYERS}?version=one": (400, "invalid-query", "version: .*integer"),
    f"{LAYERS}?version=0": (400, "invalid-query", "version: .*greater than 0"),
    f"{LAYERS}?version=1&version=1": (400, "invalid-query", "more than once: version"),
    f"{LAYERS}?version=2": (404, "unknown-version", "'digits' is not served in version 2"),
    f"{LAYERS}?{'a' * 9000}=1&b=1": (400, "invalid-query", "^unknown parameter 'a{64}...'$"),
    "/v1/models/other": (404, "unknown-model", "'other'"),
    "/v1/models/other/layers": (404, "unknown-model", "'other'"),
    "/v1/models/digits/fold?x=1": (400, "invalid-query", "unknown parameter 'x'"),
    "/v1/models/digits?x=1": (400, "invalid-query", "unknown parameter 'x'"),
    "/v1/models?x=1": (400, "invalid-query", "unknown parameter 'x'"),
    "/v3/anything": (404, "not-found", "nothing"),
}


def sent(service: Service, case: Case) -> httpx.Response:
    headers = case.headers | ({"Content-Type": case.media_type} if case.media_type else {})
    return service.http.post(f"{case.address}?{case.query}", content=case.body, headers=headers)


def assert_refused(answer: httpx.Response, expected: tuple[int, str, str]) -> None:
    assert_problem(answer.status_code, answer.headers, answer.json(), expected=expected)


def assert_right(service: Service, digits: Digits) -> None:
    answer: Any = service.predict(npy(digits.pixels[:3]), NPY).json()
    assert [p["index"] for p in answer["predictions"]] == digits.logits[:3].argmax(axis=1).tolist()


@pytest.mark.parametrize("name", CASES)
def test_request_is_refused_with_its_own_reason(service: Service, digits: Digits, name: str) -> None:
    case = CASES[name]
    assert_refused(sent(service, case), (case.status, case.slug, case.detail))
    assert_right(service, digits)


@pytest.mark.parametrize("address", GETS)
def test_question_is_refused_with_its_own_reason(service: Service, address: str) -> None:
    assert_refused(service.get(address), GETS[address])


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("GET", PREDICT, "POST"),
        ("PUT", PREDICT, "POST"),
        ("POST", LAYERS, "GET, HEAD"),
        ("DELETE", "/readyz", "GET, HEAD"),
    ],
)
def test_wrong_method_is_told_the_right_one(
    service: Service, method: str, address: str, allowed: str
) -> None:
    answer = service.http.request(method, address)
    assert_refused(answer, (405, "method-not-allowed", "method"))
    assert answer.headers["allow"] == allowed


def test_refusal_is_json_whatever_was_accepted(service: Service) -> None:
    assert_refused(service.predict(b"", accept=NPY), (400, "invalid-input", "empty"))


def test_refusals_leave_good_requests_alone(service: Service, digits: Digits) -> None:
    over = threading.Event()

    def keep_asking() -> int:
        asked = 0
        while not over.is_set():
            assert_right(service, digits)
            asked += 1
        return asked

    with ThreadPoolExecutor(4) as clients:
        good = [clients.submit(keep_asking) for _ in range(2)]
        list(clients.map(lambda case: sent(service, case), list(CASES.values()) * 2))
        over.set()
        assert all(asking.result() for asking in good)


def test_nothing_that_was_refused_counts_as_a_bug(service: Service) -> None:
    for case in CASES.values():
        sent(service, case)
    outcomes = {key[2] for key in service.metrics() if key[0] == "foldserve_requests_total"}
    assert "internal-error" not in outcomes
    assert {"invalid-image", "invalid-tensor", "invalid-query", "too-large"} <= outcomes
