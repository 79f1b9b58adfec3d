"""Says in a sentence which torch build a pip report (on standard input) is about to install."""

import json
import sys
from urllib.parse import urlsplit

found = json.load(sys.stdin)["install"][0]
version = found["metadata"]["version"]
needs = " ".join(found["metadata"].get("requires_dist", []))
address = urlsplit(found["download_info"]["url"])

if "nvidia" in needs or "+cu" in version:
    build = "the CUDA build: several gigabytes; it runs without a GPU too"
elif "rocm" in needs or "+rocm" in version:
    build = "the ROCm build: several gigabytes"
else:
    build = "the CPU build"
sys.stdout.write(f"Installing torch {version}, {build}, from {address.hostname or 'a local folder'}\n")
