"""LitServe with batching: the network in its worker process, an API server in front.

No `from __future__ import annotations` here: LitServe hands the annotation of `decode_request` on to FastAPI.
"""

from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body
from listening import arguments
from networks import Network

given = arguments()

# In whatever the caller sent: JSON comes parsed, everything else as bytes.
Sent = Annotated[Any, Body()]


class Api(litserve.LitAPI):
    """The hooks that LitServe calls, in their order."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's signature
        self.network = Network(given.model_store, given.model, given.variant or "channels-last")
        self.pixels = int(np.prod(self.network.manifest.input.shape))

    def decode_request(self, request: Sent) -> np.ndarray:
        if isinstance(request, dict):
            return np.asarray(request["inputs"], np.float32)[0]
        if request[:2] == b"\xff\xd8":
            return self.network.row(request, "image/jpeg", "uint8")
        # Nothing but the body comes here, so that its length has to say what it is.
        dtype = "uint8" if len(request) == self.pixels else "float32"
        return self.network.row(request, "application/octet-stream", dtype)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> list[dict[str, Any]]:
        return self.network(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": [output]}


if __name__ == "__main__":
    # With no time-out LitServe's worker would ask an empty queue without end, and take a core.
    api = Api(max_batch_size=given.max_batch, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=given.port,
        num_api_servers=given.workers,
        generate_client_file=False,
        log_level="warning",
    )
