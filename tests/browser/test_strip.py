"""The strip of norms: what it may be coloured by, and that a problem is seen at a glance."""

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import Visit
from .parts import detail, open_page, strip, told

pytestmark = [pytest.mark.browser, pytest.mark.e2e]

SCORES = {"bn1": 0.21, "bn2": 0.041, "bn5": 0.002}
DRIFTING: dict[str, Any] = {
    "model": "digits",
    "version": 1,
    "state": "drifting",
    "meaning": "What reaches the first norms has changed since the baseline was recorded.",
    "reference": "baseline",
    "baseline_rows": 500,
    "collected": 12,
    "windows": 5,
    "contrary": 0,
    "judged_at": 1.7e9,
    "n": 96,
    "n_eff": 64.0,
    "scores": {"input": 0.125, "content": 0.002},
    "thresholds": {"input": 0.05, "content": 0.05},
    "training_scores": {"input": 0.3, "content": 0.1},
    "layers": [
        {
            "name": name,
            "part": "content" if name == "bn5" else "input",
            "score": score,
            "training_score": score,
            "worst": [{"channel": 7, "delta": 1.5, "lambda": -0.25, "z": 9.0}],
        }
        for name, score in SCORES.items()
    ],
}


def coloured_by(page: Page) -> Locator:
    return page.get_by_label("Coloured by")


def tints(page: Page) -> list[str | None]:
    return [piece.get_attribute("data-tint") for piece in strip(page).get_by_role("link").all()]


def told_drift(visit: Visit, report: dict[str, Any]) -> None:
    """A report in place of the server's, and nothing of single channels beside."""
    visit.page.route("**/drift?*", lambda route: route.fulfill(json=report))
    visit.page.route("**/drift/*", lambda route: route.fulfill(json={"mean": []}))


def test_sound_network_is_coloured_by_what_became_of_its_norms(visit: Visit) -> None:
    page = open_page(visit)
    expect(coloured_by(page)).to_have_value("outcome")
    assert tints(page) == ["into_producer"] * 5
    expect(page.locator("#alarms")).to_be_empty()
    expect(detail(page, "bn1")).to_contain_text("No health flags")


def test_norm_with_a_warning_is_named_and_seen_at_once(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1")
    expect(coloured_by(page)).to_have_value("flags")
    assert tints(page) == ["flag-none", "flag-warning", "flag-none", "flag-note", "flag-none"]
    alarm = page.locator("#alarms")
    expect(alarm).to_contain_text("1 norm with a warning: bn2")
    alarm.get_by_role("link", name="bn2").click()
    expect(detail(page, "bn2").get_by_role("heading", name="bn2")).to_be_focused()


def test_pieces_of_different_tints_look_different(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1")
    grounds = page.locator(".piece").evaluate_all(
        "pieces => pieces.map(piece => getComputedStyle(piece).borderBottomColor)"
    )
    assert len(set(grounds)) == 3
    assert grounds[0] == grounds[2] == grounds[4]


def test_flags_of_a_norm_say_level_number_limit_and_channels(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1/bn4")
    flags = told(visit.server, "/v1/models/worn/layers/bn4")["flags"]
    assert [flag["flag"] for flag in flags] == ["constant_channel"]
    shown = detail(page, "bn4").get_by_role("list", name="Health flags").get_by_role("listitem")
    expect(shown).to_have_count(len(flags))
    for part in ("note", "constant channel", flags[0]["message"], "limit 0.001", "channels 5, 6"):
        expect(shown).to_contain_text(part)
    shown.get_by_role("button", name="6").click()
    expect(detail(page, "bn4").get_by_label("Channel", exact=True)).to_have_value("6")
    expect(detail(page, "bn4")).to_contain_text("bn4, channel 6")


def test_flag_tells_its_rule(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1/bn2")
    detail(page, "bn2").get_by_role("button", name="eps dominates").click()
    meaning = page.locator("#meaning-flag-eps_dominates")
    expect(meaning).to_be_in_viewport(ratio=1)
    expect(meaning.locator("math")).to_be_visible()


def test_legend_counts_and_leads_from_one_norm_to_the_next(visit: Visit) -> None:
    page = open_page(visit, "/#/worn/1")
    legend = page.get_by_role("list", name="What the colours mean")
    expect(legend.get_by_role("listitem")).to_have_text(["1 warning", "1 note", "3 no flag"])
    sound = legend.get_by_role("button", name="no flag")
    for name in ("bn1", "bn3", "bn5", "bn1"):
        sound.click()
        expect(page.locator(":focus")).to_have_attribute("data-norm", name)


def test_statistic_colours_from_its_least_to_its_greatest(visit: Visit) -> None:
    page = open_page(visit)
    layers = told(visit.server, "/v1/models/digits/layers")["layers"]
    for key, of in {"running_var": "mean", "weight": "mean", "shift": "farthest"}.items():
        coloured_by(page).select_option(key)
        values = [
            max(abs(layer[key]["min"]), abs(layer[key]["max"])) if of == "farthest" else layer[key][of]
            for layer in layers
        ]
        depths = page.locator(".piece").evaluate_all(
            "pieces => pieces.map(piece => parseFloat(piece.style.getPropertyValue('--depth')))"
        )
        order = sorted(range(5), key=lambda norm: values[norm])
        assert [depths[order[0]], depths[order[-1]]] == [0, 100]
        assert [depths[norm] for norm in order] == sorted(depths)
        colours = page.locator(".piece").evaluate_all(
            "pieces => pieces.map(piece => getComputedStyle(piece).backgroundColor)"
        )
        assert colours[order[0]] != colours[order[-1]]


def test_every_choice_says_of_every_norm_what_its_colour_means(visit: Visit) -> None:
    told_drift(visit, DRIFTING)
    page = open_page(visit)
    choices = (
        coloured_by(page).locator("option").evaluate_all("options => options.map(option => option.value)")
    )
    assert len(choices) == 10
    seen = set()
    for choice in choices:
        coloured_by(page).select_option(choice)
        words = [piece.text_content() for piece in page.locator(".piece span").all()]
        assert len(words) == 5
        assert all(words), choice
        seen.add(tuple(words))
    assert len(seen) == len(choices)


# Drift


def test_drift_that_alarms_colours_the_strip_and_says_so(visit: Visit) -> None:
    told_drift(visit, DRIFTING)
    page = open_page(visit)
    expect(coloured_by(page)).to_have_value("drift")
    assert tints(page) == ["drift-over", "drift-near", "unknown", "unknown", "drift-under"]
    said = page.locator("#drift")
    for part in ("drifting", DRIFTING["meaning"], "input0.125 of 0.05", "the baseline of 500 rows"):
        expect(said).to_contain_text(part)


def test_drift_of_a_norm_shows_the_channels_that_moved_and_how(visit: Visit) -> None:
    told_drift(visit, DRIFTING)
    page = open_page(visit, "/#/digits/1/bn1")
    live = detail(page, "bn1").get_by_role("region", name="Live rows at this norm")
    expect(live).to_contain_text("0.21 of 0.05")
    expect(live.get_by_role("row").nth(1)).to_have_text("71.5−0.259")
    expect(live.get_by_role("img")).to_have_count(0)
    expect(live).to_contain_text("Choose one of the channels that moved most")
    live.get_by_role("button", name="7", exact=True).click()
    expect(detail(page, "bn1").get_by_label("Channel", exact=True)).to_have_value("7")
    expect(live.get_by_role("img", name="live: mean 1.5, deviation 0.882")).to_be_visible()


def test_drift_is_followed_while_the_page_is_open(visit: Visit) -> None:
    calm = {"state": "ok", "meaning": "Live rows look like the reference.", "contrary": 2}
    told_drift(visit, {**DRIFTING, **calm})
    page = open_page(visit)
    expect(page.locator("#drift")).to_contain_text("2 windows in a row said otherwise")
    expect(page.locator("#drift")).to_contain_text("ok")
    expect(coloured_by(page)).to_have_value("outcome")
    told_drift(visit, DRIFTING)
    expect(page.locator("#drift")).to_contain_text("drifting")
    expect(coloured_by(page)).to_have_value("drift")


def test_server_without_drift_offers_no_such_choice(visit: Visit) -> None:
    visit.expected = ("status of 404",)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.page.route("**/drift?*", lambda route: route.fulfill(status=404, json={}))
    page = open_page(visit)
    expect(coloured_by(page)).to_be_visible()
    for _ in range(2):
        page.wait_for_event("request", lambda request: request.url.endswith("/v1/models"))
    assert coloured_by(page).locator("option[value=drift]").count() == 0
    expect(page.locator("#drift")).to_be_hidden()
    assert len([address for address in asked if "/drift?" in address]) == 1
