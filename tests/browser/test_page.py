"""The page, as a reader sees and uses it: in Chromium, against a real server."""

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect

from .conftest import Visit
from .parts import DIGITS, QUANTITIES, VECTORS, detail, open_page, shown, strip, told

pytestmark = [pytest.mark.browser, pytest.mark.e2e]


def test_shows_the_model_and_that_all_five_norms_are_folded(visit: Visit) -> None:
    page = open_page(visit)
    models = page.get_by_role("region", name="Models")
    for text in ("digits", "5 of 5 norms folded", "float32", "1 × 8 × 8", "tolerance"):
        expect(models).to_contain_text(text)
    expect(page.get_by_role("status")).to_have_text("ready")
    pieces = strip(page).get_by_role("link")
    expect(pieces).to_have_count(5)
    assert [piece.get_attribute("data-outcome") for piece in pieces.all()] == ["into_producer"] * 5


def test_model_that_is_not_chosen_shows_its_parity_and_may_be_chosen(visit: Visit) -> None:
    page = open_page(visit)
    worn = page.locator(".model").filter(has_text="worn")
    models = told(visit.server, "/v1/models")["models"]
    error = next(model["fold"]["max_relative_error"] for model in models if model["model"] == "worn")
    written = re.search(r"error ([^,]+), unfolded", worn.text_content() or "")
    assert written
    assert float(written[1].replace("−", "-")) == pytest.approx(error, rel=0.05)
    expect(worn.get_by_role("img")).to_have_count(0)
    worn.get_by_role("link", name="worn").click()
    expect(worn.get_by_role("img", name="tolerance")).to_be_visible()
    expect(worn).to_have_attribute("aria-current", "true")
    expect(strip(page).get_by_role("link", name="bn1")).to_have_attribute("href", "#/worn/1/bn1")


def test_table_has_every_norm_with_what_it_knows(visit: Visit) -> None:
    page = open_page(visit)
    for layer in told(visit.server, "/v1/models/digits/layers")["layers"]:
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=layer["name"], exact=True))
        for text in (f"into {layer['partner']}", layer["reason"], str(layer["num_features"]), "1,020"):
            expect(row).to_contain_text(text)
        bounds = row.locator(".bounds")
        expect(bounds).to_have_count(len(VECTORS))
        for vector, written in zip(VECTORS, bounds.all(), strict=True):
            low, high = (shown(end) for end in (written.locator("span").first, written.locator("span").last))
            assert [low, high] == pytest.approx([layer[vector]["min"], layer[vector]["max"]], rel=5e-3)


def test_equation_of_a_norm_has_the_numbers_of_the_chosen_channel(visit: Visit) -> None:
    page = open_page(visit)
    for norm, channel in (("bn3", 0), ("bn5", 17)):
        strip(page).get_by_role("link", name=norm).click()
        opened = detail(page, norm)
        opened.get_by_label("Channel", exact=True).fill(str(channel))
        expect(opened).to_contain_text(f"{norm}, channel {channel}")
        layer = told(visit.server, f"/v1/models/digits/layers/{norm}")
        expected = {name: layer["vectors"][name][channel] for name in VECTORS} | {"eps": layer["eps"]}
        for name, value in expected.items():
            assert shown(opened.locator(f"mn[data-quantity={name}]")) == pytest.approx(value, rel=1e-4), name


def test_address_keeps_what_is_open(visit: Visit) -> None:
    page = open_page(visit)
    strip(page).get_by_role("link", name="bn4").click()
    detail(page, "bn4").get_by_label("Channel", exact=True).fill("7")
    expect(page).to_have_url(re.compile(r"#/digits/1/bn4/7$"))
    page.reload()
    expect(detail(page, "bn4")).to_contain_text("bn4, channel 7")


def test_keyboard_reaches_a_norm_and_opens_it(visit: Visit) -> None:
    page = open_page(visit)
    focused = page.locator(":focus")
    for _ in range(20):
        page.keyboard.press("Tab")
        if focused.get_attribute("data-norm"):
            break
    expect(focused).to_have_attribute("data-norm", "bn1")
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("data-norm", "bn2")
    page.keyboard.press("Enter")
    expect(detail(page, "bn2")).to_be_visible()
    expect(focused).to_have_attribute("aria-current", "true")


def test_norm_opened_from_the_table_takes_the_reader_to_it(visit: Visit) -> None:
    page = open_page(visit)
    page.get_by_role("table").get_by_role("link", name="bn5").click()
    expect(detail(page, "bn5").get_by_role("heading", level=3)).to_be_focused()


def test_every_quantity_tells_its_meaning(visit: Visit) -> None:
    page = open_page(visit)
    for quantity in QUANTITIES:
        meaning = page.locator(f"#meaning-{quantity}")
        expect(meaning).to_be_hidden()
        page.locator(f"#detail [popovertarget=meaning-{quantity}]").first.press("Enter")
        expect(meaning).to_be_in_viewport(ratio=1)
        expect(meaning.locator("math")).to_be_visible()
        page.keyboard.press("Escape")
        expect(meaning).to_be_hidden()


def test_uploaded_digits_are_named(visit: Visit) -> None:
    page = open_page(visit)
    for image in (DIGITS[0], DIGITS[15], DIGITS[-1]):
        page.get_by_label("Choose an image").set_input_files(image)
        expect(page.get_by_role("img", name=image.name)).to_be_visible()
        first = page.locator("#answer:not([aria-busy]) li").first
        expect(first.locator(".label")).to_have_text(image.stem.partition("_")[0])
        expect(first).to_contain_text("%")
        expect(page.locator("#answer")).to_contain_text("ms in the server")


def test_image_may_be_pasted_or_dropped(visit: Visit) -> None:
    page = open_page(visit)
    for event, image in (("paste", DIGITS[8]), ("drop", DIGITS[-1])):
        page.evaluate(
            """([event, bytes]) => {
              const transfer = new DataTransfer();
              transfer.items.add(new File([new Uint8Array(bytes)], "digit.png", {type: "image/png"}));
              const held = {clipboardData: transfer, dataTransfer: transfer};
              const options = {bubbles: true, cancelable: true, ...held};
              document.body.dispatchEvent(event === "paste"
                ? new ClipboardEvent(event, options) : new DragEvent(event, options));
            }""",
            [event, list(image.read_bytes())],
        )
        expect(page.locator("#answer .label").first).to_have_text(image.stem.partition("_")[0])


@pytest.mark.parametrize(
    ("media_type", "detail_part"), [("image/png", "neither JPEG nor PNG"), ("text/plain", "is not read")]
)
def test_refusal_is_shown_in_the_servers_words(visit: Visit, media_type: str, detail_part: str) -> None:
    visit.expected = ("Failed to load resource: the server responded with a status of 4",)
    page = open_page(visit)
    chosen: Any = {"name": "notes.png", "mimeType": media_type, "buffer": b"no image at all"}
    page.get_by_label("Choose an image").set_input_files(chosen)
    expect(page.locator("#answer")).to_contain_text(detail_part)
    expect(page.get_by_role("button", name="Send again")).to_be_visible()


def test_server_that_goes_away_is_told_and_found_again(visit: Visit) -> None:
    visit.expected = ("net::ERR_FAILED",)
    page = open_page(visit)
    page.route("**/v1/**", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(detail(page, "bn1")).to_be_visible()
    page.unroute("**/v1/**")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("ready")


def test_page_opened_while_models_are_loading_fills_itself(visit: Visit) -> None:
    starting = {"state": "starting", "models": []}
    visit.page.route("**/v1/models", lambda route: route.fulfill(json=starting))
    visit.page.goto("/")
    expect(visit.page.get_by_role("status")).to_have_text("starting")
    visit.page.unroute("**/v1/models")
    expect(strip(visit.page).get_by_role("link")).to_have_count(5)


def test_server_without_a_model_says_so(visit: Visit) -> None:
    visit.page.route("**/v1/models", lambda route: route.fulfill(json={"state": "ready", "models": []}))
    visit.page.goto("/")
    for place in ("Models", "What each norm knows"):
        expect(visit.page.get_by_role("region", name=place)).to_contain_text("No model is loaded")
    expect(visit.page.locator("#drawing")).to_be_hidden()


def test_address_of_another_channel_of_the_open_norm_is_followed(visit: Visit) -> None:
    page = open_page(visit, "/#/digits/1/bn4/7")
    expect(detail(page, "bn4")).to_contain_text("bn4, channel 7")
    page.evaluate("location.hash = '#/digits/1/bn4/12'")
    expect(detail(page, "bn4")).to_contain_text("bn4, channel 12")
    strip(page).get_by_role("link", name="bn4").click()
    expect(detail(page, "bn4")).to_contain_text("bn4, channel 12")


def test_text_from_the_server_stays_text(visit: Visit) -> None:
    layers = told(visit.server, "/v1/models/digits/layers")
    for layer in layers["layers"]:
        layer["reason"] = "<img src=x onerror=alert(1)>"
    visit.page.route("**/layers?*", lambda route: route.fulfill(json=layers))
    page = open_page(visit)
    expect(page.locator("#table")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("table img").count() == 0
    assert "require-trusted-types-for 'script'" in httpx.get(visit.server).headers["content-security-policy"]


@pytest.mark.parametrize("count", [5, 155])
def test_narrow_screen_needs_no_sideways_scrolling(visit: Visit, count: int) -> None:
    layers = told(visit.server, "/v1/models/digits/layers")
    known = layers["layers"]
    layers["layers"] = [{**known[i % 5], "name": known[i % 5]["name"] + i // 5 * "'"} for i in range(count)]

    def answer(route: Route) -> None:
        route.fulfill(json=layers)

    visit.page.route("**/layers?*", answer)
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = open_page(visit)
    page.get_by_label("Choose an image").set_input_files(DIGITS[0])
    expect(page.locator("#answer .label").first).to_be_visible()
    expect(strip(page).get_by_role("link")).to_have_count(count)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_follows_the_readers_colours(server: str, browser: Browser) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        with browser.new_context(base_url=server, color_scheme=scheme) as context:
            page = context.new_page()
            page.goto("/")
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_documentation_shows_every_operation_without_another_host(visit: Visit) -> None:
    visit.page.goto("/docs")
    paths = told(visit.server, "/openapi.json")["paths"]
    operations = visit.page.locator(".opblock")
    expect(operations).to_have_count(sum(len(methods) for methods in paths.values()))
    operations.first.get_by_role("button").first.click()
    expect(operations.first).to_contain_text("Parameters")
    assert visit.page.locator("a[href*=validator]").count() == 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.js", "/page/vendor/swagger-ui/swagger-ui.css"])
def test_files_come_with_headers_that_confine_them(server: str, method: str, path: str) -> None:
    answer = httpx.request(method, f"{server}{path}").raise_for_status()
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert ("unsafe-inline" in policy) == (path == "/docs")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert bool(answer.content) == (method == "GET")


def test_known_file_is_not_sent_again(server: str) -> None:
    known = {"If-None-Match": httpx.get(server).headers["etag"]}
    assert httpx.get(server, headers=known).status_code == 304
