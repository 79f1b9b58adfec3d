"""Checks with NVIDIA's tritonclient, synchronous and asynchronous, in an environment of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.clients.sent import Sent, begin

MODEL = "digits"
INFERENCES = 7


def client_of(sent: Sent) -> Any:
    """A client of the service."""
    return triton.InferenceServerClient(sent.address.removeprefix("http://"))


def tensor(array: np.ndarray, datatype: str, *, is_binary: bool = True) -> Any:
    """The input."""
    given = triton.InferInput("image", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    return given


def output(**asked: Any) -> Any:
    """The output."""
    return triton.InferRequestedOutput("logits", **asked)


def refused(call: Any, *arguments: Any, **named: Any) -> InferenceServerException:
    """The error that the client makes of a refusal."""
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        return error
    raise AssertionError("this was not refused")


async def refused_later(call: Any) -> InferenceServerException:
    """The same of an asynchronous call."""
    try:
        await call
    except InferenceServerException as error:
        return error
    raise AssertionError("this was not refused")


def describes(sent: Sent) -> None:
    """Health, metadata, configuration and the index."""
    client = client_of(sent)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready(MODEL, "2")
    server = client.get_server_metadata()
    assert server["name"] == "foldserve"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(server["extensions"])
    metadata = client.get_model_metadata(MODEL)
    assert metadata == client.get_model_metadata(MODEL, "1")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    config = client.get_model_config(MODEL)
    assert config["max_batch_size"] > 0
    index = client.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [(MODEL, "1", "READY")]


def controls(sent: Sent) -> None:
    """Loading and unloading are refused without a key, and so is what is not there."""
    client = client_of(sent)
    for call in (client.load_model, client.unload_model):
        error = refused(call, MODEL)
        assert error.status() == "403"
        assert "admin key" in error.message()
    for call in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        assert refused(call, "nobody").message() == "no model 'nobody' is served"
    assert client.get_log_settings()["log_verbose_level"] == 0
    assert refused(client.update_log_settings, {"log_verbose_level": 1}).status() == "403"
    for call in (client.get_trace_settings, client.get_system_shared_memory_status):
        assert refused(call).status() == "404"


def loads(sent: Sent) -> None:
    """A model is unloaded and loaded, with the admin's key."""
    client, headers = client_of(sent), {"Authorization": "Bearer a-key-of-some-length"}
    states = {entry["state"] for entry in client.get_model_repository_index()}
    assert states == {"READY"}
    client.unload_model(MODEL, headers=headers)
    assert not client.is_model_ready(MODEL)
    (entry,) = client.get_model_repository_index()
    assert (entry["name"], entry["state"]) == (MODEL, "UNAVAILABLE")
    assert refused(client.unload_model, MODEL, headers=headers).status() == "404"
    client.load_model(MODEL, headers=headers)
    assert client.is_model_ready(MODEL)
    sent.check(client.infer(MODEL, [tensor(sent.inputs, "FP32")]).as_numpy("logits"))
    for wrong in ({"config": "{}"}, {"files": {"file:1/model.onnx": b"content"}, "config": "{}"}):
        assert refused(client.load_model, MODEL, headers=headers, **wrong).status() == "400"
    assert refused(client.load_model, "nobody", headers=headers).status() == "404"


async def _loads_asynchronously(sent: Sent) -> None:
    headers = {"Authorization": "Bearer a-key-of-some-length"}
    async with triton_aio.InferenceServerClient(sent.address.removeprefix("http://")) as client:
        await client.unload_model(MODEL, headers=headers)
        assert not await client.is_model_ready(MODEL)
        await client.load_model(MODEL, headers=headers)
        assert await client.is_model_ready(MODEL)


def loads_asynchronously(sent: Sent) -> None:
    """The same with the asynchronous client."""
    asyncio.run(_loads_asynchronously(sent))


def infers(sent: Sent) -> None:
    """Every datatype, in JSON and binary both ways."""
    client = client_of(sent)
    given = [
        *(tensor(sent.inputs, "FP32", is_binary=is_binary) for is_binary in (True, False)),
        *(tensor(sent.pixels, "UINT8", is_binary=is_binary) for is_binary in (True, False)),
    ]
    for one in given:
        for outputs in (None, [output(binary_data=True)], [output(binary_data=False)]):
            found = client.infer(MODEL, [one], outputs=outputs, request_id="seven")
            sent.check(found.as_numpy("logits"))
            assert found.get_response()["id"] == "seven"
    half = client.infer(MODEL, [tensor(sent.inputs.astype(np.float16), "FP16")])
    sent.check(half.as_numpy("logits"), tolerance=2e-2)
    brain = client.infer(MODEL, [tensor(sent.inputs.astype(ml_dtypes.bfloat16), "BF16")])
    sent.check(brain.as_numpy("logits"), tolerance=1e-1)
    one = client.infer(MODEL, [tensor(sent.inputs[:1], "FP32")], model_version="1", timeout=30_000_000)
    sent.check(one.as_numpy("logits"), rows=1)


def infers_images(sent: Sent) -> None:
    """Encoded images as BYTES."""
    client = client_of(sent)
    for images in (sent.images, sent.images[:, np.newaxis]):
        sent.check(client.infer(MODEL, [tensor(images, "BYTES")]).as_numpy("logits"))


def compresses(sent: Sent) -> None:
    """Both codings, of bodies and of answers."""
    client = client_of(sent)
    for coding in ("gzip", "deflate"):
        for is_binary in (True, False):
            found = client.infer(
                MODEL,
                [tensor(sent.inputs, "FP32", is_binary=is_binary)],
                outputs=[output(binary_data=is_binary)],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            sent.check(found.as_numpy("logits"))


def classifies(sent: Sent) -> None:
    """The best classes, in JSON and binary."""
    client = client_of(sent)
    for is_binary in (True, False):
        outputs = [output(class_count=3, binary_data=is_binary)]
        found = client.infer(MODEL, [tensor(sent.inputs, "FP32")], outputs=outputs).as_numpy("logits")
        assert found.shape == (len(sent.inputs), 3)
        texts = [item if isinstance(item, str) else item.decode() for item in found.ravel()]
        indices = np.array([int(text.split(":")[1]) for text in texts]).reshape(found.shape)
        np.testing.assert_array_equal(indices, np.argsort(-sent.logits, axis=1)[:, :3])


def refuses(sent: Sent) -> None:
    """Errors come as the client's own exception, with our sentence in it."""
    client = client_of(sent)
    wrong = tensor(sent.inputs[:, :, :4], "FP32")
    assert "expected [N, 1, 8, 8]" in refused(client.infer, MODEL, [wrong]).message()
    good = tensor(sent.inputs, "FP32")
    many = refused(client.infer, MODEL, [good], outputs=[output(class_count=11)])
    assert "there are 10 classes" in many.message()
    late = refused(client.infer, MODEL, [good], timeout=1)
    assert late.status() == "504"


def counts(sent: Sent) -> None:
    """The server's statistics agree with what this client counted."""
    client = client_of(sent)

    def counted() -> dict[str, Any]:
        stats: dict[str, Any] = client.get_inference_statistics(MODEL, "1")["model_stats"][0]
        return stats

    before = counted()
    for _ in range(INFERENCES):
        # A connection of its own for each, so that every worker gets some.
        client_of(sent).infer(MODEL, [tensor(sent.inputs[:3], "FP32")])
    for _ in range(2):
        refused(client_of(sent).infer, MODEL, [tensor(sent.inputs.astype(np.float64), "FP64")])
    after = counted()
    assert after["inference_count"] - before["inference_count"] == 3 * INFERENCES
    assert 1 <= after["execution_count"] - before["execution_count"] <= INFERENCES
    expected = {"success": INFERENCES, "fail": 2, "queue": INFERENCES, "compute_infer": INFERENCES}
    for name, gained in expected.items():
        stats = [of["inference_stats"][name] for of in (before, after)]
        assert stats[1]["count"] - stats[0]["count"] == gained, name
        assert stats[1]["ns"] >= stats[0]["ns"]
    everything = client.get_inference_statistics()["model_stats"]
    assert [stats["name"] for stats in everything] == [MODEL]


def infers_asynchronously(sent: Sent) -> None:
    """The asyncio client, many requests at once."""

    async def all_of_it() -> None:
        client = triton_aio.InferenceServerClient(sent.address.removeprefix("http://"))
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        assert not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata())["name"] == "foldserve"
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        assert (await client.get_model_config(MODEL))["max_batch_size"] > 0
        assert len(await client.get_model_repository_index()) == 1
        given = [
            *(tensor(sent.inputs, "FP32", is_binary=is_binary) for is_binary in (True, False)),
            tensor(sent.images, "BYTES"),
        ]
        codings = ("request_compression_algorithm", "response_compression_algorithm")
        asked = [
            client.infer(MODEL, [one], **dict.fromkeys(codings, coding))
            for one in given
            for coding in (None, "gzip", "deflate")
        ]
        for found in await asyncio.gather(*asked):
            sent.check(found.as_numpy("logits"))
        classes = await client.infer(MODEL, given[:1], outputs=[output(class_count=1, binary_data=False)])
        indices = [int(text.split(":")[1]) for text in classes.get_response()["outputs"][0]["data"]]
        assert indices == sent.logits.argmax(axis=1).tolist()
        refusal = await refused_later(client.infer("nobody", given[:1]))
        assert refusal.message() == "no model 'nobody' is served"
        assert (await client.get_inference_statistics(MODEL))["model_stats"]
        await client.close()

    asyncio.run(all_of_it())


CHECKS = {
    check.__name__: check
    for check in (
        *(describes, controls, infers, infers_images, compresses, classifies, refuses, counts),
        *(infers_asynchronously, loads, loads_asynchronously),
    )
}

if __name__ == "__main__":
    begin(CHECKS)
