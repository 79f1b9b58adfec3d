"""Checks with KServe's REST client, in an environment of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from tests.clients.sent import Sent, begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MODEL = "digits"


def request(array: np.ndarray, datatype: str, *, is_binary: bool = False, **more: Any) -> Any:
    """A request with the one input."""
    given = InferInput("image", list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    return InferRequest(MODEL, [given], **more)


def logits(response: Any) -> np.ndarray:
    """The one output."""
    found: np.ndarray = response.outputs[0].as_numpy()
    return found


async def describes(client: Any, sent: Sent) -> None:
    """Health."""
    assert await client.is_server_live(sent.address) is True
    assert await client.is_server_ready(sent.address) is True
    assert await client.is_model_ready(sent.address, MODEL) is True
    assert await client.is_model_ready(sent.address, "nobody") is False


async def infers(client: Any, sent: Sent) -> None:
    """JSON and binary both ways."""
    for is_binary in (False, True):
        for array, datatype in ((sent.inputs, "FP32"), (sent.pixels, "UINT8")):
            for asked in ({}, {"parameters": {"binary_data_output": True}}):
                given = request(array, datatype, is_binary=is_binary, request_id="seven", **asked)
                found = await client.infer(sent.address, given, model_name=MODEL)
                sent.check(logits(found))
                assert found.id == "seven"
    half = request(sent.inputs.astype(np.float16), "FP16", is_binary=True)
    sent.check(logits(await client.infer(sent.address, half, model_name=MODEL)), tolerance=2e-2)
    images = request(sent.images, "BYTES", is_binary=True)
    sent.check(logits(await client.infer(sent.address, images, model_name=MODEL)))
    outputs = [RequestedOutput("logits", parameters={"binary_data": True})]
    named = request(sent.inputs, "FP32", request_outputs=outputs)
    sent.check(logits(await client.infer(sent.address, named, model_name=MODEL)))
    plain = {"inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.0] * 64}]}
    assert logits(await client.infer(sent.address, plain, model_name=MODEL)).shape == (1, 10)


async def refuses(client: Any, sent: Sent) -> None:
    """Errors come with our sentence in them."""
    for model, array, sentence in (
        ("nobody", sent.inputs, "no model 'nobody' is served"),
        (MODEL, sent.inputs[:, :, :4], "expected [N, 1, 8, 8]"),
    ):
        refusal = await refused(client.infer(sent.address, request(array, "FP32"), model_name=model))
        assert sentence in str(refusal), refusal


async def refused(call: Any) -> httpx.HTTPStatusError:
    """The error that the client makes of a refusal."""
    try:
        await call
    except httpx.HTTPStatusError as error:
        return error
    raise AssertionError("this was not refused")


def with_client(check: Callable[[Any, Sent], Awaitable[None]]) -> Callable[[Sent], None]:
    """The check with a client of the second protocol."""

    async def all_of_it(sent: Sent) -> None:
        async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
            await check(client, sent)

    return lambda sent: asyncio.run(all_of_it(sent))


CHECKS = {check.__name__: with_client(check) for check in (describes, infers, refuses)}

if __name__ == "__main__":
    begin(CHECKS)
