"""The extension in the web UI's page, in a real Chromium: the dropdown, the line under it, the sparkle button."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .browser import chromium
from .webui import Webui

if TYPE_CHECKING:  # the package is optional
    from playwright.sync_api import Page

WAIT_MS = 60_000
BEHIND = "behind FMBoost latent 2x"
NOISE_STEPS = "Noise step: 100 to 700 (default 400)."
UNUSED = "Hires prompt, sampler, checkpoint and denoising strength are not used."


@pytest.fixture(scope="module")
def page(webui: Webui) -> Iterator[Page]:
    """txt2img of 64x64 pixels and 2 steps, with hires-fix opened."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1500, "height": 1400})
        context.route(lambda url: "//127.0.0.1" not in url, lambda route: route.abort())
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(webui.url(), wait_until="domcontentloaded")
        page.wait_for_selector("#txt2img_generate", state="visible")
        page.wait_for_selector("#quicksettings", state="attached")
        # Its scripts add the checkbox to the accordion's title, and until then a click opens nothing.
        page.wait_for_selector("#txt2img_hr-visible-checkbox", state="attached")
        page.wait_for_timeout(3000)
        for name, value in (("width", "64"), ("height", "64"), ("steps", "2")):
            enter(page, f"txt2img_{name}", value)
        page.locator("#txt2img_hr > .label-wrap").click()
        page.locator("#fmboost_options > .label-wrap").click()
        yield page


def enter(page: Page, name: str, value: str) -> None:
    field = page.locator(f"#{name} input[type=number]").first
    field.fill(value)
    field.press("Tab")


def choose(page: Page, name: str, option: str) -> None:
    page.locator(f"#{name} input").first.click()
    page.locator("ul.options li").filter(has_text=re.compile(rf"^\W*{re.escape(option)}\s*$")).first.click()


def line(page: Page) -> Any:
    return page.locator("#fmboost_line").first


def wait_for_line(page: Page, text: str) -> None:
    says = "(text) => document.querySelector('#fmboost_line')?.innerText.trim() === text"
    try:
        page.wait_for_function(says, arg=text, timeout=20_000)
    except Exception:
        raise AssertionError(line(page).inner_text()) from None


def test_the_line_under_the_dropdown_says_what_will_be_made(page: Page) -> None:
    assert not line(page).is_visible()
    choose(page, "txt2img_hr_upscaler", "FMBoost 2x")
    wait_for_line(page, f"64x64 → 128x128 with sd15-x2 {BEHIND}, 1 evaluation. {NOISE_STEPS} {UNUSED}")
    box, row = line(page).bounding_box(), page.locator("#txt2img_hr_upscaler").bounding_box()
    assert box and row and box["y"] >= row["y"] + row["height"] - 1 and box["width"] > 2 * row["width"]
    enter(page, "txt2img_hr_scale", "3")
    enter(page, "txt2img_hires_steps", "2")
    wait_for_line(page, f"64x64 → 192x192 with sd15-x2 {BEHIND}, 2 evaluations. {NOISE_STEPS} {UNUSED}")
    choose(page, "fmboost_solver", "rk4")
    wait_for_line(page, "rk4 evaluates 4 times a step, so nfe=2 does not fit; take 4.")
    choose(page, "fmboost_solver", "euler")
    choose(page, "fmboost_model", "sub/own")
    page.locator("#fmboost_refine input").check()
    refined = "Then the sampler refines it, with hires steps, prompt and denoising strength."
    wait_for_line(page, f"64x64 → 192x192 with sub/own {BEHIND}, 1 evaluation. {NOISE_STEPS} {refined}")
    page.locator("#fmboost_refine input").uncheck()
    choose(page, "fmboost_model", "Automatic")
    enter(page, "txt2img_hr_scale", "2")
    enter(page, "txt2img_hires_steps", "0")
    wait_for_line(page, f"64x64 → 128x128 with sd15-x2 {BEHIND}, 1 evaluation. {NOISE_STEPS} {UNUSED}")
    choose(page, "txt2img_hr_upscaler", "Latent")
    line(page).wait_for(state="hidden")


def test_the_sparkle_button_upscales_an_image_of_the_gallery(page: Page) -> None:
    """The small image is made first; the button then upscales it with the settings of hires-fix."""
    choose(page, "txt2img_hr_upscaler", "FMBoost 2x")
    checkbox = page.locator("#txt2img_hr-visible-checkbox")
    if checkbox.is_checked():
        checkbox.click()
    made = "(side) => [...document.querySelectorAll('#txt2img_gallery img')].some((i) => i.naturalWidth === side)"
    page.locator("#txt2img_generate").click()
    page.wait_for_function(made, arg=64, timeout=120_000)
    page.locator("#txt2img_upscale").click()
    page.wait_for_function(made, arg=128, timeout=120_000)
    assert "FMBoost model: sd15-x2" in page.locator("#html_info_txt2img").first.inner_text()
