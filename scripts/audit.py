"""Asks OSV for advisories on every version that is pinned, and never takes silence for an answer.

The status is 0 where OSV answered and knows none, 1 where it knows some, and 2 where it did not answer.

usage: python scripts/audit.py FILE-OF-PINS ...        AUDIT_INDEX: another address that answers as OSV does
"""

import json
import os
import re
import sys
import urllib.request
from pathlib import Path

INDEX = os.environ.get("AUDIT_INDEX", "https://api.osv.dev")
PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;#]+)")
TIMEOUT_S = 30


def pins(files: list[str]) -> list[tuple[str, str]]:
    lines = [line for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return [(found[1], found[2]) for line in lines if (found := PIN.match(line))]


def asked(pinned: list[tuple[str, str]]) -> list[list[str]]:
    """The advisories on each pin, in their order; raises where that is not what came."""
    queries = [{"package": {"name": n, "ecosystem": "PyPI"}, "version": v} for n, v in pinned]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(f"{INDEX}/v1/querybatch", body, {"Content-Type": "application/json"})  # noqa: S310 - an address of ours or the caller's
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        results = json.load(answer)["results"]
    if len(results) != len(pinned):
        raise ValueError("it answered for another number of packages")
    return [[each["id"] for each in result.get("vulns") or []] for result in results]


def main() -> int:
    pinned = pins(sys.argv[1:])
    if not pinned:
        sys.stderr.write("NOT AUDITED: no pinned version was given\n")
        return 2
    try:
        advisories = asked(pinned)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"NOT AUDITED: {INDEX} did not answer as it should ({error})\n")
        return 2
    known = [(*pin, name) for pin, names in zip(pinned, advisories, strict=True) for name in names]
    for package, version, name in known:
        sys.stdout.write(f"{package} {version}: {name}, see https://osv.dev/vulnerability/{name}\n")
    sys.stdout.write(f"{len(pinned)} versions were looked up; {len(known)} advisories are known\n")
    return 1 if known else 0


sys.exit(main())
