"""What is in the image, and above all what is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import search

if TYPE_CHECKING:
    from .conftest import Served
    from .container import Image

pytestmark = pytest.mark.image

SITE = "/opt/foldserve/lib"
SIZE = Path(__file__).parents[2] / "scripts" / "image_size.py"
LOADING_EVERYTHING = """
import importlib, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
libraries = [path.relative_to(site) for path in site.rglob("*.so") if "torch" not in path.parts]
modules = {str(path).partition(".")[0].replace("/", ".") for path in libraries if ".libs" not in str(path)}
print(*sorted(filter(importlib.import_module, modules)))
"""
DECODERS = "from PIL import features; print([f for f in ('avif', 'webp', 'freetype2') if features.check(f)])"


def found(served: Served, *where: str) -> list[str]:
    """The paths that `find` finds, where the image's user may look."""
    return served.container.run("find", *where).stdout.split()


def test_its_own_part_is_as_small_as_promised(served: Served) -> None:
    """As `make image` says; a build that is larger fails there."""
    done = served.container.run("python3", "-c", SIZE.read_text(encoding="utf-8"))
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = [float(size) for size in re.findall(r"([\d.]+) MB", done.stdout)]
    assert 50 < sizes[0] < 120, done.stdout
    assert all(size > 50 for size in sizes), done.stdout


def test_a_part_that_grew_is_refused(served: Served) -> None:
    script = SIZE.read_text(encoding="utf-8").replace("LIMIT = 120_000_000", "LIMIT = 50_000_000")
    assert served.container.run("python3", "-c", script).returncode == 1


@pytest.mark.parametrize("program", ["pip", "gcc", "cc", "ld", "make", "git", "curl", "wget"])
def test_no_compiler_and_nothing_that_fetches(served: Served, program: str) -> None:
    assert served.container.run("sh", "-c", f"command -v {program}").returncode != 0


def test_pip_is_not_in_the_environment_of_the_service(served: Served) -> None:
    assert served.container.run("python3", "-c", "import service").returncode == 0
    assert served.container.run("python3", "-c", "import pip").returncode != 0


@pytest.mark.parametrize("package", ["pytest", "hypothesis", "mypy", "sklearn", "httpx", "tests"])
def test_nothing_that_only_tests_or_training_need(served: Served, package: str) -> None:
    assert "No module named" in served.container.run("python3", "-c", f"import {package}").stderr


def test_no_test_code_no_headers_and_no_static_libraries(served: Served) -> None:
    assert found(served, SITE, "-type", "d", "-name", "tests") == []
    of_others = [SITE, "-path", "*/torch/*", "-prune", "-o"]  # torch's own compiler names its headers
    for kind in ("*.h", "*.c", "*.cpp", "*.a", "*.pyx", "*.pyi"):
        assert found(served, *of_others, "-name", kind, "-print") == []


def test_no_cache_and_nothing_of_the_build(served: Served) -> None:
    for place in ("/build", "/wheel", "/image", "/opt/tools", "/requirements.txt", "/pyproject.toml"):
        assert served.container.run("test", "-e", place).returncode != 0, place
    assert found(served, "/var/cache/apt/archives", "/var/lib/apt/lists", "-name", "*.deb") == []
    assert found(served, "/opt", "/models", "-name", ".cache", "-o", "-name", "*.whl") == []


def test_no_decoder_of_a_format_that_is_refused(served: Served) -> None:
    assert served.container.run("python3", "-c", DECODERS).stdout.strip() == "[]"


def test_every_library_can_still_be_loaded(served: Served) -> None:
    """Though what only debuggers and linkers read was cut off."""
    done = served.container.run("python3", "-c", LOADING_EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert {"uvloop.loop", "PIL._imaging", "csimdjson", "numpy.linalg._umath_linalg"} <= set(
        done.stdout.split()
    )


def test_modules_start_without_being_compiled_anew(served: Served) -> None:
    """Bytecode lies beside every module of ours, marked as not to be compared with its source."""
    modules = set(found(served, SITE, "-path", "*/site-packages/service/*", "-name", "*.py"))
    compiled = found(served, SITE, "-path", "*/site-packages/service/*", "-name", "*.pyc")
    assert len(compiled) == len(modules) > 50


def test_no_file_of_the_image_is_or_holds_a_secret(served: Served) -> None:
    script = Path(search.__file__).read_text(encoding="utf-8")
    done = served.container.run("python3", "-c", script, "/", "/proc", "/sys", "/dev")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not served.container.run("sh", "-c", "ls -A /run/secrets").stdout
    assert found(served, "/", "-xdev", "-name", "ca.pem") == []


def test_no_variable_label_or_step_of_the_build_says_a_secret(image: Image) -> None:
    """What was given to the build stays readable in an image's history."""
    said = [*image.configuration["Env"], *map(str, image.configuration["Labels"].values()), *image.history]
    assert len(image.history) > 3
    for text in said:
        assert search.told(text.encode()) == [], "not repeated here"
        assert not search.WITH_PASSWORD.search(text.encode())
    names = {variable.partition("=")[0].upper() for variable in image.configuration["Env"]}
    assert not {
        name
        for name in names
        if re.search("KEY(?!_ID)|TOKEN|SECRET|PASSW|CREDENTIAL", name) and name != "GPG_KEY"
    }
