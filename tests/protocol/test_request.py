"""Requests of the protocol: what is read of them, and what is refused and why."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InputTooLarge, InvalidInput, InvalidTensor
from service.protocol import documents
from service.protocol.body import Reader
from service.protocol.numbers import Numbers
from service.protocol.request import InferRequest, Octets, RequestedOutput, read_request
from tests.protocol.documents import TENSOR, document, tensor, written

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHOUT_DATA = {"data": None}


def read(content: bytes, tail: bytes = b"") -> InferRequest:
    return read_request(Reader([content + tail]), len(content))


def binary(size: Any, **changes: Any) -> dict[str, Any]:
    return tensor(data=None, parameters={"binary_data_size": size}, **changes)


def octets(request: InferRequest) -> list[bytes]:
    return [b"".join(t.content.pieces) for t in request.inputs if isinstance(t.content, Octets)]


def test_a_whole_request_is_read() -> None:
    request = read(
        written(
            {
                "id": "seven",
                "model_name": "ignored, as kserve's client sends it",
                "parameters": {"timeout": 2500, "binary_data_output": True, "priority": 1},
                "inputs": [TENSOR],
                "outputs": [
                    {"name": "a", "parameters": {"classification": 3, "binary_data": False}},
                    {"name": "b"},
                ],
            }
        )
    )
    assert (request.identity, request.timeout_s, request.is_binary) == ("seven", 0.0025, True)
    assert request.outputs == [RequestedOutput("a", False, 3), RequestedOutput("b", None, None)]
    (image,) = request.inputs
    assert (image.name, image.datatype, image.shape) == ("image", "FP32", (2, 2))
    assert isinstance(image.content, Numbers)
    assert json.loads(image.content.content[image.content.start : image.content.stop]) == [1, 2, 3, 4]


def test_what_is_null_or_empty_is_as_if_it_were_not_there() -> None:
    request = read(written({"id": None, "parameters": None, "outputs": None, "inputs": [TENSOR]}))
    assert (request.identity, request.timeout_s, request.is_binary) == (None, None, False)
    assert list(request.outputs) == []
    assert read(written({"parameters": {"timeout": 0}, "outputs": [], "inputs": [TENSOR]})).timeout_s is None


def test_binary_tensors_follow_in_the_order_of_the_inputs() -> None:
    inputs = [binary(3, name="a"), tensor(name="b"), binary(0, name="c"), binary(2, name="d")]
    request = read(written({"inputs": inputs}), b"abcde")
    assert octets(request) == [b"abc", b"", b"de"]
    assert [tensor.name for tensor in request.inputs] == ["a", "b", "c", "d"]


@given(st.lists(st.integers(0, 60), max_size=6))
def test_where_a_body_comes_in_pieces_changes_nothing(cuts: list[int]) -> None:
    content = written({"inputs": [binary(5, name="a"), binary(6, name="b")]})
    body, places = content + b"hello world", sorted(cuts)
    pieces = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    assert octets(read_request(Reader(pieces), len(content))) == [b"hello", b" world"]


def test_binary_tensors_are_not_copied() -> None:
    content = written({"inputs": [binary(4)]})
    body = content + b"abcd"
    (only,) = read_request(Reader([body]), len(content)).inputs
    assert isinstance(only.content, Octets)
    assert [piece.obj for piece in only.content.pieces if isinstance(piece, memoryview)] == [body]


def test_however_many_tensors_there_are_the_pieces_are_walked_once() -> None:
    looks = 0

    class Pieces(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            nonlocal looks
            for piece in super().__iter__():
                looks += 1
                yield piece

    content = written({"inputs": [binary(10, name=f"{number}") for number in range(64)]})
    pieces = Pieces([content, *(b"x" for _ in range(640))])
    assert octets(read_request(Reader(pieces), len(content))) == [b"x" * 10] * 64
    assert looks <= 2 * len(pieces)


def test_a_string_that_looks_like_an_array_stays_a_string() -> None:
    trap = '"data":[1,2]} \\"data\\":[3], \\\\'
    request = read(written({"id": trap, "inputs": [tensor(datatype="BYTES", data=[trap, trap])]}))
    assert request.identity == trap
    assert request.inputs[0].content == [trap, trap]


def test_a_key_that_only_ends_like_data_is_no_tensor_s() -> None:
    request = read(b'{"x\\"data": [1, 2], ' + document()[1:])
    assert isinstance(request.inputs[0].content, Numbers)


NOT_JSON = {
    "nothing": b"",
    "half": document()[:-2],
    "deep": b'{"inputs":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep objects": b'{"inputs":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    "NaN outside data": b'{"id":NaN,"inputs":[]}',
    "not UTF-8": b'{"id":"\xff","inputs":[]}',
    "a lone surrogate": b'{"id":"\\ud800","inputs":[]}',
    "two documents": document() * 2,
    "a list": b"[]",
    "null": b"null",
    "a comma too many": b'{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[1],}]}',
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_refused(name: str) -> None:
    with pytest.raises(InvalidTensor, match="document"):
        read(NOT_JSON[name])


MALFORMED: dict[str, Any] = {
    "no inputs": {},
    "inputs null": {"inputs": None},
    "inputs an object": {"inputs": {}},
    "an input a number": {"inputs": [3]},
    "an id a number": {"id": 3, "inputs": [TENSOR]},
    "parameters a list": {"parameters": [], "inputs": [TENSOR]},
    "a parameter a list": {"parameters": {"data": [1]}, "inputs": [TENSOR]},
    "a parameter an object": {"parameters": {"x": {}}, "inputs": [TENSOR]},
    "a parameter null": {"parameters": {"x": None}, "inputs": [TENSOR]},
    "an array elsewhere": {"data": [1], "inputs": [TENSOR]},
    "a timeout below 0": {"parameters": {"timeout": -1}, "inputs": [TENSOR]},
    "a timeout with a fraction": {"parameters": {"timeout": 1.5}, "inputs": [TENSOR]},
    "a timeout in words": {"parameters": {"timeout": "1"}, "inputs": [TENSOR]},
    "a timeout that is true": {"parameters": {"timeout": True}, "inputs": [TENSOR]},
    "binary_data_output 1": {"parameters": {"binary_data_output": 1}, "inputs": [TENSOR]},
    "outputs an object": {"inputs": [TENSOR], "outputs": {"name": "a"}},
    "an output without a name": {"inputs": [TENSOR], "outputs": [{}]},
    "an output twice": {"inputs": [TENSOR], "outputs": [{"name": "a"}, {"name": "a"}]},
    "an input twice": {"inputs": [TENSOR, TENSOR]},
    "100,000 outputs": {"inputs": [TENSOR], "outputs": [{"name": "a"}] * 100_000},
    "binary_data 1": {"inputs": [TENSOR], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]},
    "0 classes": {"inputs": [TENSOR], "outputs": [{"name": "a", "parameters": {"classification": 0}}]},
    "classes in words": {
        "inputs": [TENSOR],
        "outputs": [{"name": "a", "parameters": {"classification": "3"}}],
    },
    "shared memory": {"inputs": [binary(0) | {"parameters": {"shared_memory_region": "a"}}]},
    "an output in shared memory": {
        "inputs": [TENSOR],
        "outputs": [{"name": "a", "parameters": {"shared_memory_region": "a"}}],
    },
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_the_protocol_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        read(written(MALFORMED[name]))


@pytest.mark.parametrize(
    "shape",
    [
        *([], [0], [-1], [2, -2], [1.0], ["1"], [True], None, 4, [2**31], [2**16, 2**16], [2**63, 2**63]),
        *([1] * 9, [10**30], [[2, 2]]),
    ],
    ids=str,
)
def test_shapes_that_no_tensor_can_have_are_refused(shape: Any) -> None:
    with pytest.raises(InvalidTensor, match="shape"):
        read(document(shape=shape))


@pytest.mark.parametrize("datatype", ["FP8", "fp32", "", 3, None, [], "STRING", "FP32 "], ids=str)
def test_unknown_datatypes_are_refused(datatype: Any) -> None:
    with pytest.raises(InvalidTensor, match="datatype"):
        read(document(datatype=datatype))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_in_json_are_refused(datatype: str) -> None:
    with pytest.raises(InvalidTensor, match="binary"):
        read(document(datatype=datatype))


@pytest.mark.parametrize(
    ("size", "tail"),
    [(3, b"ab"), (3, b"abcd"), (-1, b""), (2**70, b""), (1.0, b"a"), ("1", b"a"), (True, b"a"), (0, b"a")],
)
def test_bytes_that_are_missing_or_left_over_are_refused(size: Any, tail: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(written({"inputs": [binary(size)]}), tail)


def test_data_and_binary_data_exclude_each_other() -> None:
    with pytest.raises(InvalidTensor, match="either"):
        read(document(parameters={"binary_data_size": 4}), b"abcd")
    with pytest.raises(InvalidTensor, match="either"):
        read(document(data=None))


WORDS = ["inputs", "outputs", "parameters", "data", "name", "shape", "datatype", "id"]
KEYS = st.sampled_from(WORDS) | st.text()
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@given(ANY)
def test_any_json_is_read_or_refused(root: Any) -> None:
    with contextlib.suppress(InvalidInput):
        read(written(root))


def test_names_of_any_length_make_short_errors() -> None:
    name = "x" * 10_000
    with pytest.raises(InvalidInput) as twice:
        read(written({"inputs": [tensor(name=name)] * 2}))
    with pytest.raises(InvalidInput) as parameter:
        read(written({"parameters": {name: []}, "inputs": [TENSOR]}))
    assert max(len(str(twice.value)), len(str(parameter.value))) < 200


def test_however_many_arrays_seem_to_begin_only_a_few_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look may read all that follows."""
    looks = 0

    def look(_: bytes, __: int) -> int:
        nonlocal looks
        looks += 1
        return 0

    monkeypatch.setattr(documents, "_end_of_numbers", look)
    with pytest.raises(InvalidInput):
        read(b'{"data":[' * 1000)
    assert 0 < looks <= 16


@pytest.mark.parametrize(
    "piece", [b"[],", b"{},", b"0,", b'"",'], ids=["lists", "objects", "numbers", "texts"]
)
def test_documents_of_very_many_values_are_not_parsed(piece: bytes) -> None:
    with pytest.raises(InputTooLarge, match="more than 10000 values beside its numbers"):
        read(b'{"parameters":[' + piece * 10_001 + b'0],"inputs":[]}')


@pytest.mark.parametrize("outputs", ["", 0, False, {}])
def test_outputs_that_are_no_list_are_refused(outputs: Any) -> None:
    with pytest.raises(InvalidInput, match="outputs"):
        read(written({"inputs": [TENSOR], "outputs": outputs}))
