"""How a peer listens: uvicorn with uvloop and httptools, on sockets like foldserve's."""

from __future__ import annotations

import argparse
import os
import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

_BACKLOG = 2048


def arguments() -> argparse.Namespace:
    """What every peer is started with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1, help="HTTP processes")
    parser.add_argument("--model-store", default="model_store")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--variant", default="", help="of the peer, where it has some")
    return parser.parse_args()


def serve(app: FastAPI, port: int, workers: int = 1) -> None:
    """Serve until a signal comes, each worker with a socket of its own on the port.

    More than one worker is forked: call it before anything has threads.
    """
    for _ in range(workers - 1):
        if os.fork() == 0:
            break
    config = uvicorn.Config(app, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    uvicorn.Server(config).run(sockets=[_listening(port)])


def _listening(port: int) -> socket.socket:
    # IPPROTO_TCP: without it asyncio leaves Nagle's delay on.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(_BACKLOG)
    return listening
