"""One client process: so many connections, each with one errand after the other until the time is over.

    python -m tests.soak.client HOST PORT SECONDS CONNECTIONS SEED

Prints its tally as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from tests.soak.errands import ERRANDS, Connection, WrongAnswerError
from tests.soak.tally import Tally


async def _visit(connection: Connection, chance: random.Random, until: float) -> None:
    errands, weights = list(ERRANDS), list(ERRANDS.values())
    while asyncio.get_running_loop().time() < until:
        (errand,) = chance.choices(errands, weights)
        try:
            await errand(connection, chance)
        except (WrongAnswerError, OSError, TimeoutError) as error:
            connection.tally.is_wrong(f"{errand.__name__}: {error or type(error).__name__}")
            connection.drop()
        if chance.random() < 0.05:
            await asyncio.sleep(chance.random() / 5)
    connection.drop()


async def _visits(host: str, port: int, seconds: float, connections: int, seed: int) -> Tally:
    tally, until = Tally(), asyncio.get_running_loop().time() + seconds
    visits = (
        _visit(Connection(host, port, tally), random.Random(f"{seed} {number}"), until)
        for number in range(connections)
    )
    await asyncio.gather(*visits)
    return tally


def main() -> None:
    """Visit and print."""
    host, *numbers = sys.argv[1:]
    port, seconds, connections, seed = map(int, numbers)
    print(json.dumps(vars(asyncio.run(_visits(host, port, seconds, connections, seed)))))


if __name__ == "__main__":
    main()
