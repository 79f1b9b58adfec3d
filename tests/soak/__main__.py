"""Use a service hard and say whether it stood it.

    python -m tests.soak [--seconds 600] [--clients 3] [--connections 8]

The exit status is 0 where every request was answered as it deserved, nothing is left in use, no process ended
and memory stayed flat.
"""

from __future__ import annotations

import argparse
import sys

from tests.soak.soak import Verdict, soak


def main() -> int:
    """Soak and print."""
    parser = argparse.ArgumentParser(
        "tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--clients", type=int, default=3, help="processes")
    parser.add_argument("--connections", type=int, default=8, help="of each client")
    arguments = parser.parse_args()
    verdict = soak(arguments.seconds, arguments.clients, arguments.connections)
    _print(verdict)
    return 1 if verdict.complaints else 0


def _print(verdict: Verdict) -> None:
    tally = verdict.tally
    for title, counts in (
        ("answers", tally.answers),
        ("closed instead", tally.closings),
        ("clients that left", tally.leavings),
    ):
        print(f"{title}: {sum(counts.values())}")
        for name, count in sorted(counts.items()):
            print(f"  {count:8} {name}")
    for growth in verdict.growths:
        print(f"memory: {growth.first:.1f} to {growth.last:.1f} MiB: {growth.name}")
    for complaint in verdict.complaints:
        print(f"WRONG: {complaint}")
    print("the service stood it" if not verdict.complaints else "the service did not stand it")


if __name__ == "__main__":
    sys.exit(main())
