"""A real server process and a real Chromium, started once; a page that notices what it should not do."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from torch import Tensor

from service import cli
from tests.e2e.server import Server
from tests.e2e.stores import copied, with_tensors
from tests.evaluation.folders import held_out_digits

ACCEPTED = range(160)  # of the held-out digits, which the baseline is of
PATIENCE = 60.0  # seconds; only a hang takes this long
QUIET = [
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",  # that of a container is small, and a page that outgrows it dies
]


@dataclass
class Visit:
    """One page, and everything that went wrong on it."""

    page: Page
    server: str
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    """Parts of complaints that the test provokes."""

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._on_request)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.expected)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.server}/", f"blob:{self.server}/", "data:")):
            self.complaints.append(f"request to {request.url}")


def damage(tensors: dict[str, Tensor]) -> None:
    """What raises flags and can still be served: two channels of small weight, one of small variance."""
    tensors["bn2.running_var"][3] = 1e-9
    tensors["bn4.weight"][5:7] = 1e-6
    tensors["bn4.bias"][5:7] = 0.5


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a ready server: the shipped model, with a baseline, and `worn`, which raises flags."""
    folder = tmp_path_factory.mktemp("page")
    store = folder / "store"
    copied(store)
    with_tensors(copied(store, "worn"), damage)
    images = held_out_digits(folder / "images", ACCEPTED)
    where = ["--model-store", str(store), "--device", "cpu", "--threads", "1"]
    assert cli.main(["calibrate", "digits", "--images", str(images), *where]) == 0
    with Server.start(model_store=store, drift_share=0.5) as started:
        yield started.address
        assert started.stop() == 0, started.log
        assert "Traceback" not in started.log


@pytest.fixture(scope="package")  # gone before other tests run: Playwright keeps an event loop running
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    chromium = shutil.which("chromium")
    assert chromium, "no chromium on the PATH; on Debian: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", *QUIET]
        )
        yield opened
        opened.close()


@pytest.fixture
def visit(server: str, browser: Browser) -> Iterator[Visit]:
    """A fresh page; at the end of the test it has logged no error and asked no other host."""
    with browser.new_context(base_url=server, viewport={"width": 1280, "height": 900}) as context:
        visited = Visit(context.new_page(), server)
        context.set_default_timeout(PATIENCE * 1000)
        expect.set_options(timeout=PATIENCE * 1000)
        yield visited
        assert visited.unexpected() == []
