"""What broke TorchServe, Triton, BentoML, Ray and MLServer, tried one by one.

The service is one of which an admin may ask for changes. Each case names whom it hit, and by which number
that is known. Whatever is tried: it is refused, nothing is fetched, nothing is written, no process is
replaced, and the next request is answered.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from .digits import JSON, MULTIPART, OCTETS, Digits, assert_serves, multipart, npy
from .infer import INFER, binary, body, tensor
from .problems import assert_no_insides
from .server import NPY, Server
from .stores import copied
from .tree import Tree
from .wire import PREDICT, chunk, head, is_closed, reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

SECRET = "a-key-of-some-length"
ADMIN = {"Authorization": f"Bearer {SECRET}"}
LOAD = "/v2/repository/models/digits/load"
TRAP, LOOT = "@trap@", "@loot@"
"""In a case: an address at which a fetch would be seen, and a folder in which a written file would be."""
EVIL = {"Host": "evil.example:8000", "Origin": "http://evil.example:8000"}


class Runs:
    """A pickle that writes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class Attack(NamedTuple):
    """One request, with whatever it needs to do harm."""

    method: str
    path: str
    status: int
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


def post(path: str, status: int, content: bytes | dict[str, Any] = b"", **headers: str) -> Attack:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Attack("POST", path, status, content, given)


def load(status: int, path: str = LOAD, **parameters: Any) -> Attack:
    """By an admin: a stolen key must not be worth more than the store."""
    return Attack("POST", path, status, {"parameters": parameters}, ADMIN)


def infer(status: int, *inputs: dict[str, Any], tail: bytes = b"", **root: Any) -> Attack:
    content, headers = body(*inputs, tail=tail, **root)
    return Attack("POST", INFER, status, content, headers)


ONE = tensor(np.zeros((1, 1, 8, 8), np.float32))
REGION = {"shared_memory_region": "foldserve", "shared_memory_byte_size": 1 << 40}
FORM = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n@trap@/a.png\r\n--x--\r\n'
FILES = {"file:1/model.pt2": "AAAA", "file:../../../@loot@/x": "AAAA", "config": '{"backend": "python"}'}
BATCHED = {"Payload-Container": "PickleContainer", "Payload-Meta": '{"format": "pickle"}', "Batch-Size": "1"}

ATTACKS = {
    # A model from anywhere, by anybody
    "TorchServe, CVE-2023-43654: a model is fetched": post(
        f"/models?url={TRAP}/x.mar&initial_workers=1", 404
    ),
    "TorchServe: a model is fetched by the management API": Attack("PUT", f"/models/x?url={TRAP}/x.mar", 404),
    "TorchServe: a workflow, CVE-2022-1471": post(f"/workflows?url={TRAP}/x.war", 404),
    "TorchServe: YAML as input": post(
        PREDICT, 415, b"!!javax.script.X []", Content_Type="application/x-yaml"
    ),
    "TorchServe, CVE-2024-35198: a file by its path": post("/models?url=..%2f..%2f..%2fetc%2fpasswd", 404),
    "TorchServe: anybody unregisters a model": Attack("DELETE", "/models/digits/1.0", 404),
    "Triton: anybody loads": post(LOAD, 401),
    "Triton: anybody unloads": post("/v2/repository/models/digits/unload", 401),
    "Triton, CVE-2026-24207: another way to the same address": post(f"{LOAD}/", 401),
    "MLServer: a repository by its address": load(400, url=f"{TRAP}/model.tar.gz"),
    "MLServer: an implementation to import": load(400, implementation="os.system"),
    # What an admin may not do either
    "Triton: a configuration that names a backend": load(400, config='{"backend": "python"}'),
    "Triton: files that come with the request": load(400, **FILES),
    "Triton, CVE-2023-31036: a model above the store": load(404, "/v2/repository/models/..%2f..%2fx/load"),
    "Triton: a model by an absolute path": load(404, "/v2/repository/models/%2fetc/load"),
    "Triton: a model with NUL": load(404, "/v2/repository/models/digits%00/load"),
    "MLServer: a model above the store": Attack("POST", "/v2/models/..%2f..%2fetc/infer", 404, b"{}"),
    # Files that the service would write or read
    "Triton, CVE-2024-0087: a log file": post("/v2/logging", 401, {"log_file": f"{LOOT}/log"}),
    "Triton, CVE-2024-0087: a log file of an admin's": Attack(
        "POST", "/v2/logging", 400, {"log_file": f"{LOOT}/log"}, ADMIN
    ),
    "Triton: a trace file": post("/v2/trace/setting", 404, {"trace_file": [f"{LOOT}/trace"]}),
    "files of the page above it": Attack("GET", "/page/..%2f..%2f..%2fetc/passwd", 404),
    "files of the page by an absolute path": Attack("GET", "/page/%2fetc%2fpasswd", 404),
    "files of the page, twice encoded": Attack("GET", "/page/%252e%252e/%252e%252e/worker.py", 404),
    # Memory of the service
    "Triton, CVE-2025-23319: a region is registered": post(
        "/v2/systemsharedmemory/region/x/register",
        404,
        {"key": "/foldserve", "offset": 0, "byte_size": 1 << 20},
    ),
    "Triton: a region on a device": post("/v2/cudasharedmemory/region/x/register", 404, {"byte_size": 64}),
    "Triton: regions are listed": Attack("GET", "/v2/systemsharedmemory/status", 404),
    "Triton, CVE-2025-23320: an input in a region": infer(400, ONE | {"data": None, "parameters": REGION}),
    "Triton, CVE-2025-23334: an output to a region": infer(
        400, ONE, outputs=[{"name": "logits", "parameters": REGION}]
    ),
    # Shapes
    "shape that overflows to what is there": infer(400, ONE | {"shape": [2**58, 8, 8, 1]}),
    "shape whose product is 0 in 64 bits": infer(400, ONE | {"shape": [2**32, 2**32, 1, 1]}),
    "shape below 0": infer(400, ONE | {"shape": [-1, 1, 8, 8]}),
    "shape of zeros and more": infer(400, ONE | {"shape": [0, 2**63 - 1, 8, 8]}),
    "bytes beyond their element": infer(400, binary(b"\xff" * 8, [1], "BYTES"), tail=b"\xff" * 8),
    # Pickles
    "BentoML, CVE-2025-27520: a pickle by its type": post(
        PREDICT, 415, Content_Type="application/vnd.bentoml+pickle"
    ),
    "BentoML, CVE-2024-2912: a pickle by headers": Attack(
        "POST", PREDICT, 415, b"@pickle@", BATCHED | {"Content-Type": "application/pickle"}
    ),
    "BentoML, CVE-2025-32375: a pickle in a runner's words": Attack(
        "POST", "/Summarization/infer", 404, b"@pickle@", BATCHED
    ),
    "a pickle as npy": post(PREDICT, 400, b"@pickle@", Content_Type=NPY),
    "a pickle in npy": post(PREDICT, 400, b"@npy@", Content_Type=NPY),
    "a pickle as octets": post(PREDICT, 400, b"@pickle@", Content_Type=OCTETS),
    "a pickle as an image": post(PREDICT, 400, b"@pickle@", Content_Type="image/png"),
    "a form that is wrong, which would write to the log": post(PREDICT, 400, b"--y", Content_Type=MULTIPART),
    # Addresses to fetch
    "BentoML, CVE-2025-54381: an image by its address": post(
        PREDICT, 400, FORM, Content_Type="multipart/form-data; boundary=x"
    ),
    "an image by its address, in JSON": post(
        PREDICT, 400, {"inputs": [{"url": f"{TRAP}/a.png"}]}, Content_Type=JSON
    ),
    "an address in place of an image": post(PREDICT, 400, {"inputs": [f"{TRAP}/a.png"]}, Content_Type=JSON),
    "an address in base64": post(PREDICT, 400, {"inputs": [{"b64": "@trap64@"}]}, Content_Type=JSON),
    "an address as BYTES": infer(
        400, {"name": "image", "shape": [1], "datatype": "BYTES", "data": [f"{TRAP}/a"]}
    ),
    "an address to pass on": Attack("GET", "/v1/models?url=@trap@", 400),
    "headers that a proxy believes": Attack(
        "GET", "/nothing", 404, b"", {"X-Forwarded-Host": "evil", "X-Original-URL": "/"}
    ),
    # Browsers
    "Ray, CVE-2023-48022: anybody's job": post("/api/jobs/", 404, {"entrypoint": f"touch {LOOT}/job"}),
    "Ray, CVE-2026-27482: a page under another name": Attack(
        "DELETE", "/api/serve/applications/", 403, b"", EVIL
    ),
    "Ray, CVE-2025-62593: a page under another name asks": Attack("GET", "/v1/models", 403, b"", EVIL),
    "a page under another name predicts": Attack(
        "POST", PREDICT, 403, b"x", EVIL | {"Content-Type": "image/png"}
    ),
    "a form of another site": Attack(
        "POST", PREDICT, 403, multipart([b""]), {"Origin": "https://evil.example", "Content-Type": MULTIPART}
    ),
    "a script of another site": Attack("POST", INFER, 403, b"{}", {"Sec-Fetch-Site": "cross-site"}),
    "another site with an admin's key": Attack("POST", LOAD, 403, b"", ADMIN | {"Origin": "null"}),
    "another site asks whether it may": Attack("OPTIONS", LOAD, 405, b"", {"Origin": "https://evil.example"}),
    # Debugging left open
    **{
        f"{path} is not there": Attack("GET", path, 404)
        for path in (
            "/debug",
            "/console",
            "/.git/config",
            "/env",
            "/metrics/../.env",
            "/v2/models/digits/versions/1/model.pt2",
            "/dashboard/",
            "/shutdown",
        )
    },
}


class Trap:
    """A server that answers nobody and counts who came."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def has_caught(self) -> bool:
        try:
            self._listening.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listening.close()


class Scene:
    """A service, and all that an attack could leave behind."""

    def __init__(self, server: Server, store: Path, loot: Path, trap: Trap) -> None:
        self.server, self.store, self.loot, self.trap = server, store, loot, trap
        self.tree = Tree(server.process.pid)
        self.before = self.state()

    def state(self) -> tuple[Any, ...]:
        """What must stay: processes, files of the store and what is served."""
        files = {path: path.stat().st_mtime_ns for path in sorted(self.store.rglob("*"))}
        listed = self.server.get("/v1/models").json()["models"]
        return self.tree.all(), files, [(each["model"], each["version"]) for each in listed]

    def filled(self, content: bytes | dict[str, Any]) -> bytes:
        """What is sent, with the addresses of this scene."""
        content = json.dumps(content).encode() if isinstance(content, dict) else content
        runs = Runs(self.loot / "pickle")
        values = {
            b"@trap64@": base64.b64encode(self.trap.address.encode()),
            TRAP.encode(): self.trap.address.encode(),
            LOOT.encode(): str(self.loot).encode(),
            b"@pickle@": pickle.dumps(runs),
            b"@npy@": npy(np.array([runs], dtype=object)),
        }
        for mark, value in values.items():
            content = content.replace(mark, value)
        return content

    def assert_unharmed(self, digits: Digits) -> None:
        assert_serves(self.server, digits)
        assert self.state() == self.before
        assert not self.trap.has_caught()
        assert list(self.loot.iterdir()) == []
        assert "Traceback" not in self.server.log


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("attacks")
    copied(folder / "store")
    (folder / "loot").mkdir()
    trap = Trap()
    keys = f"admin:ops:{SECRET}"
    with Server.start(model_store=folder / "store", model_control="explicit", keys=keys, workers=2) as server:
        yield Scene(server, folder / "store", folder / "loot", trap)
        assert server.stop() == 0, server.log
    trap.close()


def test_the_traps_catch(scene: Scene, digits: Digits) -> None:
    """What is looked at afterwards does change where an attack succeeds."""
    pickle.loads(scene.filled(b"@pickle@"))
    made = scene.loot / "pickle"
    assert made.is_file()
    with pytest.raises(AssertionError):
        scene.assert_unharmed(digits)
    made.unlink()
    socket.create_connection(("127.0.0.1", int(scene.trap.address.rpartition(":")[2]))).close()
    with pytest.raises(AssertionError):
        scene.assert_unharmed(digits)
    scene.assert_unharmed(digits)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_and_leaves_nothing_behind(scene: Scene, digits: Digits, name: str) -> None:
    attack, written = ATTACKS[name], len(scene.server.log)
    answer = scene.server.http.request(
        attack.method,
        attack.path.replace(TRAP, scene.trap.address),
        content=scene.filled(attack.body),
        headers=attack.headers,
    )
    assert answer.status_code == attack.status, answer.text
    assert "access-control-allow-origin" not in answer.headers
    assert_no_insides(answer.text)
    assert str(scene.store.parent) not in answer.text
    said = set(scene.server.log[written:].split())
    assert attack.headers == ADMIN or not said & {"WARNING", "ERROR"}, "strangers cannot fill the log"
    scene.assert_unharmed(digits)


def test_triton_cve_2025_23310_a_body_in_a_million_chunks_takes_no_stack(
    scene: Scene, digits: Digits
) -> None:
    with scene.server.connect() as connection:
        connection.sendall(
            head("Transfer-Encoding: chunked", address=INFER).replace(b"image/png", JSON.encode())
        )
        for _ in range(100):
            connection.sendall(chunk(b"[") * 10_000)
        connection.sendall(b"0\r\n\r\n")
        assert reply(connection).status in (400, 413)
    scene.assert_unharmed(digits)


def test_bentoml_cve_2024_9056_a_boundary_with_a_tail_is_refused_in_no_time(
    scene: Scene, digits: Digits
) -> None:
    """Their parser looked at each of these bytes anew."""
    tail = multipart([b"x"]).removesuffix(b"\r\n") + b"-" * (8 << 20)
    answer = scene.server.predict(tail, MULTIPART)
    assert answer.status_code == 400, answer.text
    scene.assert_unharmed(digits)


def test_the_service_is_no_proxy(scene: Scene, digits: Digits) -> None:
    authority = scene.trap.address.removeprefix("http://")
    for line in (
        f"GET {scene.trap.address}/ HTTP/1.1",
        f"CONNECT {authority} HTTP/1.1",
        f"GET //{authority}/ HTTP/1.1",
    ):
        with scene.server.connect() as connection:
            connection.sendall(f"{line}\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
            assert reply(connection).status in (400, 404, 200)
            assert is_closed(connection)
    scene.assert_unharmed(digits)


@pytest.mark.parametrize("name", ["model.mar", "model.tar", "model.zip"])
def test_torchserve_and_bentoml_no_archive_is_unpacked(scene: Scene, digits: Digits, name: str) -> None:
    """Zip slip, GHSA-m6w7-qv66-g3mf: what lies in the store is weights and text, or is refused."""
    version = scene.store / "digits" / "2"
    version.mkdir()
    try:
        (version / name).write_bytes(b"PK\x03\x04../../../loot/x")
        (version / "model.toml").write_text(
            f'architecture = "digits"\n[weights]\nfile = "../{name}"\nsha256 = "0"\n'
        )
        answer = scene.server.http.post(LOAD, headers=ADMIN)
        assert answer.status_code == 400, answer.text
        assert_no_insides(answer.text.replace("model.toml", ""))
    finally:
        for path in version.iterdir():
            path.unlink()
        version.rmdir()
    scene.before = scene.state()[0], scene.state()[1], scene.before[2]
    scene.assert_unharmed(digits)
