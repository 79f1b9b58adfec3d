"""One address, several workers: connections spread over them, and no other service slips in between."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from .load import rows
from .server import Process, Server
from .tree import Tree
from .wire import reply

if TYPE_CHECKING:
    from .digits import Digits

pytestmark = pytest.mark.e2e

CONNECTIONS = 64


def test_connections_spread_over_the_workers_and_a_second_service_is_refused(digits: Digits) -> None:
    with Server.start(workers=2) as server:
        port = urlsplit(server.address).port
        for workers in (1, 2):
            with Process("serve", port=port, workers=workers) as second:
                assert second.wait() == 1
                assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in second.log
                assert "Traceback" not in second.log
        tree = Tree(server.process.pid)
        clients = [server.connect() for _ in range(CONNECTIONS)]
        for number, client in enumerate(clients):
            ask = rows(digits, number, 1)
            client.sendall(ask.request)
            assert tuple(row["index"] for row in reply(client).body["predictions"]) == ask.indices
        owners = Counter(tree.owner(client) for client in clients)
        for client in clients:
            client.close()
        assert set(owners) == set(tree.workers(2))
        assert min(owners.values()) >= CONNECTIONS // 8, owners
        assert server.stop() == 0, server.log
