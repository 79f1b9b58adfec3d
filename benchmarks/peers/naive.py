"""What most people write first: a sync handler that runs the network on its request, one row at a time.

FastAPI runs it on a pool of threads; nothing is batched.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from listening import arguments, serve
from networks import Network

given = arguments()
network = Network(given.model_store, given.model, given.variant or "eager")
app = FastAPI(openapi_url=None)


async def read(request: Request) -> bytes:
    """The body; reading it has to be awaited, which a sync handler cannot do."""
    return await request.body()


@app.post("/predict")
def predict(request: Request, body: Annotated[bytes, Depends(read)], dtype: str = "uint8") -> dict[str, Any]:
    """The best class of one row."""
    row = network.row(body, request.headers["content-type"], dtype)
    return {"predictions": network(row[None])}


if __name__ == "__main__":
    serve(app, given.port)
