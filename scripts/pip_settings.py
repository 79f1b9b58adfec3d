"""Writes what a build inside a container needs of this machine's pip configuration into a folder.

pip.conf (the configuration), ca.pem (the certificates, where pip has some of its own) and local-folders
(folders that it takes packages from, one a line).

usage: python scripts/pip_settings.py FOLDER
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

CARRIED = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "timeout",
    "default-timeout",
)
SECTIONS = ("global.", "install.", ":env:.")  # each goes before the one ahead of it
BUNDLE_IN_BUILD = "/run/secrets/ca.pem"


def configured() -> dict[str, str]:
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings: dict[str, str] = {}
    for section in SECTIONS:
        for line in listing.stdout.splitlines():
            if line.startswith(section):
                key, _, value = line.removeprefix(section).partition("=")
                settings[key] = ast.literal_eval(value)
    return settings


def certificates(settings: dict[str, str]) -> Path | None:
    named = [settings.get("cert"), *map(os.environ.get, ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))]
    return next((Path(name) for name in named if name and Path(name).is_file()), None)


def local_folders(settings: dict[str, str]) -> list[Path]:
    places = " ".join(settings.get(key, "") for key in ("index-url", "extra-index-url", "find-links")).split()
    paths = [
        Path(unquote(urlsplit(place).path)) for place in places if urlsplit(place).scheme in {"", "file"}
    ]
    # A simple index names its files by paths beside it, so the folder above it has to be there as well.
    return [path.parent if path.name == "simple" else path for path in paths if path.is_dir()]


def main() -> None:
    folder = Path(sys.argv[1])
    settings = configured()
    kept = {key: value for key, value in settings.items() if key in CARRIED}
    bundle = certificates(settings)
    if bundle is not None:
        shutil.copyfile(bundle, folder / "ca.pem")
        kept["cert"] = BUNDLE_IN_BUILD
    lines = [f"{key} = {' '.join(value.split())}" for key, value in kept.items()]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    (folder / "local-folders").write_text(
        "".join(f"{path}\n" for path in sorted(set(local_folders(settings))))
    )


main()
