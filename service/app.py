"""The application: the one place where the service is put together."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from typing import TYPE_CHECKING

from service import telemetry
from service.engine.placement import place
from service.engine.supervisor import Supervisor
from service.errors import InvalidConfiguration
from service.keyring import Keyring

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.engine.card import ModelCard
    from service.settings import Settings

_BACKLOG = 2048


def serve(settings: Settings, greet: Callable[[list[ModelCard], str], None]) -> int:
    """Serve until a signal comes; the answer is the process's exit status.

    `greet` is called once everything is ready, with the cards of the models and the address that is served.
    """
    telemetry.set_up_logs(settings.log_level, settings.log_format, "supervisor")
    keyring = Keyring(settings)  # a wrong key is found before anything is started
    _allow_descriptors()
    return asyncio.run(_serve(settings, keyring, greet))


def _allow_descriptors() -> None:
    """Let this process and its children open as many files as they ever may: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(settings: Settings, keyring: Keyring, greet: Callable[[list[ModelCard], str], None]) -> int:
    placement = place(settings)
    listening = _listen(settings, placement.workers)
    address = _address(listening[0])
    supervisor: Supervisor
    for number in (signal.SIGTERM, signal.SIGINT):  # before there is anything to clean up
        asyncio.get_running_loop().add_signal_handler(
            number,
            lambda: supervisor.signalled(),  # noqa: PLW0108 - it is made below, before any signal is heard
        )
    with telemetry.directory() as counts:
        shared = telemetry.SharedValues(counts, "supervisor")
        supervisor = Supervisor(
            settings,
            keyring,
            listening,
            placement,
            telemetry.Telemetry(shared),
            counts,
            lambda cards: greet(cards, address),
        )
        return await supervisor.run()


def _listen(settings: Settings, workers: int) -> list[socket.socket]:
    """A listening socket for each worker, all of one address; raises `InvalidConfiguration`.

    One socket shared by all would leave some of 32 connections' workers idle.
    """
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        family, address = found[0][0], found[0][4]
        # Bound before it shares its address: else another service of the same user would share it, too.
        first = _bound(family, address, share_before=False)
        others = [_bound(family, first.getsockname(), share_before=True) for _ in range(workers - 1)]
        for listening in (first, *others):
            listening.listen(_BACKLOG)
    except OSError as error:
        raise InvalidConfiguration(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from error
    return [first, *others]


def _bound(family: int, address: object, *, share_before: bool) -> socket.socket:
    # IPPROTO_TCP named: without it asyncio leaves Nagle's delay on.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_before:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        made.close()
        raise
    return made


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
