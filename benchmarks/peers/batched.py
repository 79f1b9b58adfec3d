"""The best that one process can do by hand: a queue on the event loop, a batch of whatever waits, one thread
that computes. Decoding images and JSON is left to other threads."""

from __future__ import annotations

import asyncio
import gc
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from fastapi import FastAPI, Request
from listening import arguments, serve
from networks import Network
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

given = arguments()
computing = ThreadPoolExecutor(1, "compute")
decoding = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "decode")
# Made on the thread that computes: warmed up elsewhere it would be slower.
network = computing.submit(Network, given.model_store, given.model, given.variant or "channels-last").result()
waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[Any]]] = asyncio.Queue()
app = FastAPI(openapi_url=None)
_INLINE_BYTES = 16 * 1024


async def batches() -> None:
    """Run what waits, again and again."""
    loop = asyncio.get_running_loop()
    while True:
        batch = [await waiting.get()]
        while len(batch) < given.max_batch and not waiting.empty():
            batch.append(waiting.get_nowait())
        try:
            answers = await loop.run_in_executor(computing, _computed, [row for row, _ in batch])
        except Exception as error:  # noqa: BLE001 - those who wait must hear of it
            for _, reply in batch:
                if not reply.done():
                    reply.set_exception(error)
            continue
        for (_, reply), answer in zip(batch, answers, strict=True):
            if not reply.done():
                reply.set_result(answer)


def _computed(rows: list[np.ndarray]) -> list[dict[str, Any]]:
    return network(np.stack(rows))


@app.post("/predict")
async def predict(request: Request) -> Response:
    """The best class of one row."""
    media_type, dtype = request.headers["content-type"], request.query_params.get("dtype", "uint8")
    body = await request.body()
    loop = asyncio.get_running_loop()
    if media_type == "application/octet-stream" or len(body) < _INLINE_BYTES:
        row = network.row(body, media_type, dtype)
    else:
        row = await loop.run_in_executor(decoding, network.row, body, media_type, dtype)
    reply: asyncio.Future[Any] = loop.create_future()
    waiting.put_nowait((row, reply))
    return Response(orjson.dumps({"predictions": [await reply]}), media_type="application/json")


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The batches run as long as the application does."""
    running = asyncio.create_task(batches())
    gc.collect()
    gc.freeze()  # a full collection with torch loaded stops everything for a tenth of a second
    yield
    running.cancel()


app.router.lifespan_context = lifespan

if __name__ == "__main__":
    serve(app, given.port)
