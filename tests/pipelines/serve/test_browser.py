"""The page in a browser: choose a picture, see its people, ask what if."""

import json

import pytest

from pipelines.serve.desk import Desk
from tests.pipelines.browsing import in_scheme, luminance
from tests.pipelines.serve.conftest import LIMITS, THERE, picture, running

pytest.importorskip("selenium.webdriver")


@pytest.fixture
def opened(browser, desk):
    """The page of a running server; `address` is its address."""
    with running(desk) as url:
        for name in ("browser", "performance"):
            browser.get_log(name)  # reading empties it
        browser.get(url)
        browser.address = url
        wait(browser, lambda: all_of(browser, "#caution"))
        yield browser
        browser.get("about:blank")


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def wait(browser, true):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 15, 0.05).until(lambda _: true())


def choose(browser, folder, name="two people.png", data=None):
    path = folder / name
    path.write_bytes(picture(200, 120, 1) if data is None else data)
    all_of(browser, "#file")[0].send_keys(str(path))


def status(browser):
    return all_of(browser, "#status")[0].text


def scores(browser, card=0):
    rows = all_of(browser, ".card")[card].find_elements("css selector", ".score")
    return {
        row.get_attribute("data-label"): row.find_element("css selector", ".n").text for row in rows
    }


def click(browser, element):
    browser.execute_script("arguments[0].click()", element)


def check(browser, card, group, number):
    inputs = all_of(browser, ".card")[card].find_elements("css selector", f".{group} input")
    click(browser, inputs[number])


def test_a_picture_that_is_chosen_shows_its_people(opened, tmp_path, predictor):
    choose(opened, tmp_path)
    wait(opened, lambda: len(all_of(opened, ".card")) == 2)
    assert status(opened) == "2 people"
    want = predictor.answer(tmp_path / "two people.png")
    for number, mark in enumerate(want.marks):
        assert scores(opened, number) == {name: f"{score:.2f}" for name, score in mark.emotions}
        listed = all_of(opened, ".card")[number].find_elements("css selector", ".objects .check")
        names = [one.find_element("css selector", "span") for one in listed]
        assert [one.get_property("textContent") for one in names] == [
            thing.name for thing in mark.objects
        ]
    picture_of = all_of(opened, "#frame img")[0]
    assert picture_of.get_attribute("src").startswith("data:image/webp")
    assert opened.execute_script("return arguments[0].naturalWidth", picture_of) == 200
    lines = all_of(opened, "#frame .line")
    assert len(lines) == 2 and len(all_of(opened, "#frame .face")) == 2
    across = [float(line.get_attribute("x")) for line in lines]
    assert sorted(across) == [5, 105]
    colours = {line.get_attribute("stroke") for line in lines}
    assert len(colours) == 2
    # the thresholds of calm, glad and tense
    assert len(all_of(opened, ".card:first-child .score .limit")) == 3
    # nothing went wrong, and nobody else was asked
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and event["params"]["documentURL"].startswith(opened.address)
    ]
    assert f"{opened.address}/api/predict" in asked
    assert all(url.startswith((f"{opened.address}/", "data:")) for url in asked)


def test_what_must_be_said_stands_above(opened):
    banners = [one.text for one in all_of(opened, ".banner")]
    assert banners == [
        "Data. made-up labels.",
        "UNTRAINED deep runs on random weights: its features carry no learned meaning.",
    ]
    assert "not what anyone feels" in all_of(opened, "#caution")[0].text


def test_what_if_moves_the_scores_and_back(opened, tmp_path, desk):
    choose(opened, tmp_path)
    wait(opened, lambda: len(all_of(opened, ".card")) == 2)
    before, other = scores(opened), scores(opened, 1)
    token = next(iter(desk._kept))
    check(opened, 0, "views", 0)
    wait(opened, lambda: scores(opened) != before)
    want = desk.what_if(token, 0, views=[desk.about()["removable"][0]])["without"]
    assert scores(opened) == {name: f"{want[name]:.2f}" for name in before}
    assert any(one.text for one in all_of(opened, ".card:first-child .change"))
    check(opened, 0, "objects", 1)
    check(opened, 0, "edges", 0)
    edge = all_of(opened, ".card:first-child .edges input")[0].get_attribute("data-takes")
    case = {
        "views": [desk.about()["removable"][0]],
        "objects": [1],
        "edges": [tuple(edge.split(","))],
    }
    want = desk.what_if(token, 0, **case)["without"]
    wait(opened, lambda: scores(opened) == {name: f"{want[name]:.2f}" for name in before})
    assert scores(opened, 1) == other  # of the other person nothing moved
    assert len(all_of(opened, "#frame .thing.gone")) == 1
    click(opened, all_of(opened, ".card:first-child .foot button")[0])
    wait(opened, lambda: scores(opened) == before)
    assert not [one.text for one in all_of(opened, ".card .change") if one.text]
    boxes = all_of(opened, ".card .check input")
    assert boxes and all(one.is_selected() for one in boxes)
    assert opened.get_log("browser") == []


def test_a_bad_picture_is_refused_on_the_page_and_the_next_one_works(opened, tmp_path):
    choose(opened, tmp_path, "a.txt", b"no picture")
    wait(opened, lambda: "not a picture in one of" in status(opened))
    assert all_of(opened, ".card") == []
    choose(opened, tmp_path, "large.png", bytes(600_000))
    wait(opened, lambda: status(opened) == "large.png is larger than 0.5 MB")
    choose(opened, tmp_path, "one.png", picture(100, 120))
    wait(opened, lambda: status(opened) == "1 person")


def test_a_name_with_markup_is_text(opened, tmp_path):
    name = "<img src=x onerror=document.title='gone'>.png"
    choose(opened, tmp_path, name)
    wait(opened, lambda: len(all_of(opened, ".card")) == 2)
    assert all_of(opened, "#caption")[0].text.startswith("<img src=x onerror=")
    assert len(all_of(opened, "img")) == 1
    assert opened.title == "emocache: people and emotions in a picture"


def test_a_dropped_picture_is_sent(opened):
    data = list(picture(100, 120))
    opened.execute_script(
        "const moved = new DataTransfer();"
        "moved.items.add(new File([new Uint8Array(arguments[0])], 'dropped.png'));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: moved, bubbles: true}));",
        data,
    )
    wait(opened, lambda: status(opened) == "1 person")
    assert all_of(opened, "#caption")[0].text.startswith("dropped.png")


def test_it_is_used_by_keyboard(opened, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    choose(opened, tmp_path)
    wait(opened, lambda: len(all_of(opened, ".card")) == 2)
    before = scores(opened)
    opened.find_element("css selector", ".card .views input").send_keys(Keys.SPACE)
    wait(opened, lambda: scores(opened) != before)
    focused = opened.switch_to.active_element
    assert focused.get_attribute("type") == "checkbox" and not focused.is_selected()
    reached = set()
    for _ in range(30):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        reached.add(opened.switch_to.active_element.tag_name)
    assert {"input", "select", "button", "summary", "a"} <= reached


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phone_and_desk_in_light_and_dark(opened, tmp_path, width, scheme):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    in_scheme(opened, scheme)
    try:
        choose(opened, tmp_path)
        wait(opened, lambda: len(all_of(opened, ".card")) == 2)
        across = opened.execute_script("return document.documentElement.scrollWidth")
        assert across <= width
        edges = opened.execute_script(
            "return [...document.querySelectorAll('.card *')].map("
            "one => one.getBoundingClientRect().right)"
        )
        assert max(edges) <= width
        assert (luminance(opened, "body", "background-color") < 0.2) == (scheme == "dark")
        ink, ground = (
            luminance(opened, ".score .label", "color"),
            luminance(opened, ".card", "background-color"),
        )
        light, dark = max(ink, ground), min(ink, ground)
        assert (light + 0.05) / (dark + 0.05) > 7
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        in_scheme(opened, "light")


# ---- persons of the cache


def shown(browser):
    """Which person is shown: the address, the field, the card."""
    (card,) = all_of(browser, ".card")
    field = all_of(browser, "#row")[0].get_property("value")
    return browser.current_url.partition("#")[2], field, card.get_attribute("aria-label")


def wait_for(browser, row):
    wait(browser, lambda: status(browser).startswith(f"person {row},"))


def test_an_address_names_a_person_of_the_cache(opened, desk):
    row = 2 * THERE
    opened.get(f"{opened.address}/#person={row}")
    wait_for(opened, row)
    assert shown(opened) == (f"person={row}", str(row), f"person {row}")
    want = desk.person(row)
    (person,) = want["people"]
    assert scores(opened) == {name: f"{score:.2f}" for name, score in person["emotions"].items()}
    (image,) = all_of(opened, "#frame img")
    assert opened.execute_script("return arguments[0].naturalWidth", image) == 640
    assert len(all_of(opened, "#frame .line")) == 1
    rows = {one.get_attribute("data-label"): one for one in all_of(opened, ".score")}
    ticked = {name for name, one in rows.items() if one.find_elements("css selector", ".true")}
    assert ticked == set(want["true"])
    assert all_of(opened, ".true-labels")[0].text == f"✓ true: {', '.join(want['true']) or 'none'}"
    opened.execute_script(f"location.hash = 'person={row + 1}'")  # as a link to it does
    wait_for(opened, row + 1)
    check(opened, 0, "views", 0)
    wait(opened, lambda: any(one.text for one in all_of(opened, ".card .change")))
    token = next(reversed(desk._kept))
    moved = desk.what_if(token, 0, views=[desk.about()["removable"][0]])["without"]
    assert scores(opened) == {name: f"{moved[name]:.2f}" for name in scores(opened)}
    assert opened.get_log("browser") == []


def test_one_leafs_through_a_split(opened, persons, tmp_path):
    test, train = persons.of("test"), persons.of("train")
    assert all_of(opened, "#split option")[2].text == f"test ({len(test)})"
    next_, previous = all_of(opened, "#next")[0], all_of(opened, "#previous")[0]
    click(opened, next_)
    wait_for(opened, test[0])
    assert status(opened) == f"person {test[0]}, 1 of {len(test)} in test"
    assert not previous.is_enabled()
    click(opened, next_)
    wait_for(opened, test[1])
    field = all_of(opened, "#row")[0]
    field.clear()
    field.send_keys(f"{train[-1]}\n")
    wait_for(opened, train[-1])
    assert status(opened).endswith("in train: the head was fitted on this person")
    assert all_of(opened, "#split")[0].get_property("value") == "train"
    wait(opened, lambda: not next_.is_enabled())
    click(opened, previous)
    wait_for(opened, train[-2])
    choose(opened, tmp_path)  # a picture takes its place
    wait(opened, lambda: len(all_of(opened, ".card")) == 2)
    assert "#" not in opened.current_url and field.get_property("value") == ""
    assert all_of(opened, ".true-labels") == []


def test_a_person_without_a_picture_and_one_who_is_not_there(opened):
    opened.get(f"{opened.address}/#person=0")
    wait_for(opened, 0)
    assert all_of(opened, "#frame img") == [] and len(all_of(opened, "#frame .line")) == 1
    assert all_of(opened, "#frame")[0].size["height"] > 100
    said = all_of(opened, "#caption")[0].text
    assert said == "0.jpg, 640 × 480 pixels; the picture is not shown: no such file"
    for row, says in (
        ("160", "no person 160: the cache has 160, numbered from 0"),
        ("<b>1</b>", "a row is a whole number, from 0"),
        ("../about", "a row is a whole number, from 0"),
    ):
        opened.execute_script("location.hash = 'person=' + encodeURIComponent(arguments[0])", row)
        wait(opened, lambda says=says: status(opened) == says)
        assert not all_of(opened, "#result")[0].is_displayed()
        opened.execute_script("location.hash = 'person=0'")
        wait_for(opened, 0)
        assert all_of(opened, "#result")[0].is_displayed()


def test_where_none_are_offered_the_page_says_why(browser, predictor, results):
    with running(Desk(predictor, LIMITS, "there is no cache folder x")) as url:
        browser.get(f"{url}/#person=1")
        wait(browser, lambda: all_of(browser, "#no-persons")[0].text)
        assert all_of(browser, "#no-persons")[0].text == (
            "Persons of the cache are not shown: there is no cache folder x."
        )
        assert not all_of(browser, "#cached")[0].is_displayed()
        browser.get("about:blank")


def test_the_api_page_draws_itself_and_asks_nobody_else(opened):
    opened.get(f"{opened.address}/docs")
    wait(opened, lambda: len(all_of(opened, ".opblock")) == 7)
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    urls = opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert urls and all(url.startswith((opened.address, "data:")) for url in urls)
