"""What the tests of pages ask a browser; the browser itself is a fixture, `conftest.browser`."""

import json
import re
from pathlib import Path

import numpy as np


def at(browser, page: Path):
    for name in ("browser", "performance"):
        browser.get_log(name)  # reading empties it
    browser.get(page.as_uri())
    return browser


def requests(browser, page: Path) -> list[str]:
    """What was asked for the page's sake; the browser's own first tab may still be loading."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and event["params"]["documentURL"] == page.as_uri()
    ]


def shown(browser, selector: str) -> list[dict]:
    """Width and height of every element as it is laid out on the screen."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => {"
        "const r = e.getBoundingClientRect(); return {width: r.width, height: r.height}})",
        selector,
    )


def luminance(browser, selector, name) -> float:
    text = browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )
    rgb = np.array([float(v) for v in re.findall(r"[\d.]+", text)[:3]])
    rgb = rgb if text.startswith("color(srgb") else rgb / 255  # as mixed colours are given
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def in_scheme(browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
