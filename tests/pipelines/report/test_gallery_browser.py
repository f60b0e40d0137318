"""The gallery of everybody in a browser: found, listed, opened, by pointer and by keyboard."""

from urllib.parse import quote

import numpy as np
import pytest

from pipelines.report import page as pages
from pipelines.report.gallery import NO_FACE, PREDICTED, TRUE
from tests.pipelines.browsing import at, in_scheme, luminance, requests, shown
from tests.pipelines.gallery_data import gallery_report

HIT = TRUE + PREDICTED
KINDS = ("multi", "single", "distribution", "recordings")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """kind -> what its report shows, and the page; made once."""
    kept = {}

    def get(kind="multi"):
        if kind not in kept:
            folder = tmp_path_factory.mktemp(kind)
            recorded = kind == "recordings"
            data = gallery_report(folder, "multi" if recorded else kind, recorded=recorded)
            kept[kind] = data, pages.write(data, folder / "report.html")
        return kept[kind]

    return get


@pytest.fixture
def everybody(made):
    """The gallery of many labels, as it was given to the page."""
    return made()[0].gallery


@pytest.fixture
def opened(browser, made):
    return at(fresh(browser), made()[1])


def fresh(browser):
    browser.get("about:blank")  # or another address of the same page would not load it
    return browser


def go(browser, page, asked: str):
    fresh(browser).get(f"{page.as_uri()}#everybody?{asked}")
    return browser


def one(browser, selector):
    return browser.find_element("css selector", selector)


def click(browser, selector: str) -> None:
    """On the element, once it is in sight: the page scrolls smoothly, and a pointer may miss."""
    element = one(browser, selector)
    browser.execute_script(
        "arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", element
    )
    element.click()


def choose(browser, control: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(one(browser, f"#{control}")).select_by_value(value)


def press(browser, *keys: str) -> None:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def counted(browser) -> int:
    text = one(browser, "#count").text
    assert text.endswith(" of 400 persons")
    return int(text.split()[0].replace(",", ""))


def tiles(browser) -> list[int]:
    """Person rows of the tiles there are, in the order of the list."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#list li')].sort("
        "(a, b) => a.ariaPosInSet - b.ariaPosInSet).map("
        "e => +e.querySelector('.top b').textContent.split(' ')[1])"
    )


def focused(browser) -> int:
    """The person row of the tile that has the focus."""
    return browser.execute_script(
        "return +document.activeElement.closest('.tile').querySelector('b').textContent"
        ".split(' ')[1]"
    )


def card(browser) -> int | None:
    """The person row of the open card; None where it is closed."""
    return browser.execute_script(
        "const e = document.getElementById('person'); return e.open ? "
        "+e.querySelector('h2').firstChild.textContent.split(' ')[1] : null"
    )


def eventually(browser, script: str) -> None:
    """The script gives true, at once or a moment later: events and frames take their time."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 20).until(lambda _: browser.execute_script(script))


def close(browser, selector: str = "") -> None:
    """The card, by the button or by Escape."""
    if selector:
        click(browser, selector)
    else:
        press(browser, "\ue00c")
    eventually(browser, "return !location.hash.includes('open=')")
    assert card(browser) is None


def asked(browser) -> str:
    return browser.execute_script("return location.hash")


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_and_no_request_whatever_is_opened(browser, made, kind):
    _, page = made(kind)
    opened = at(fresh(browser), page)
    click(opened, ".tile")
    press(opened, *["\ue014"] * 3)  # to the right
    assert card(opened) is not None
    assert opened.get_log("browser") == []
    urls = requests(opened, page)
    assert urls[0] == page.as_uri()
    assert all(url == page.as_uri() or url.startswith("data:") for url in urls)


def test_another_script_does_not_run(browser, made, tmp_path):
    page = tmp_path / "other.html"
    evil = "<script>document.title = 'taken'</script></main>"
    page.write_text(made()[1].read_text().replace("</main>", evil))
    opened = at(browser, page)
    assert opened.title != "taken" and counted(opened) == 400
    assert "Content Security Policy" in opened.get_log("browser")[0]["message"]


def test_without_scripts_the_page_says_what_is_missing(browser, made):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        at(fresh(browser), made()[1])
        assert "needs JavaScript" in one(browser, "#everybody noscript").text
        assert not one(browser, "#finding").is_displayed()
        assert not one(browser, "#list").is_displayed()
        assert one(browser, "#labels .ap").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_only_tiles_in_sight_are_made_and_the_last_can_be_reached(opened, everybody):
    order = everybody.rows[np.argsort(everybody.measure, kind="stable")]
    assert counted(opened) == 400
    first = tiles(opened)
    assert first == order[: len(first)].tolist() and 10 < len(first) < 60
    opened.execute_async_script(
        "const done = arguments[0], e = document.getElementById('list');"
        "e.scrollTop = 1e9; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
    )
    last = tiles(opened)
    assert len(last) < 60 and last[-1] == order[-1]
    assert last[0] == order[0]  # who would get the focus stays
    boxes = shown(opened, ".tile")
    assert min(box["width"] for box in boxes) >= 160 and len({b["height"] for b in boxes}) == 1


def test_a_tile_shows_the_picture_with_the_box_where_it_is(opened, everybody):
    drawn = opened.execute_script(
        "return [...document.querySelectorAll('#list li')].filter(e => e.querySelector('image'))"
        ".map(e => {const b = e.querySelector('.of-person').getBBox(),"
        " i = e.querySelector('image').getBBox();"
        "return [+e.querySelector('b').textContent.split(' ')[1], b.x, b.y, b.x + b.width,"
        " b.y + b.height, i.width, i.height]})"
    )
    assert len(drawn) > 10
    for row, *box, wide, high in drawn:
        (place,) = np.flatnonzero(everybody.rows == row)
        np.testing.assert_allclose(box, everybody.seen.boxes[place], atol=0.02)
        assert [wide, high] == everybody.sizes[0].tolist()
    widths = opened.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.querySelectorAll('#list image')].map(e => {"
        "const i = new Image(); i.src = e.getAttribute('href');"
        "return i.decode().then(() => i.naturalWidth)})).then(done)"
    )
    assert set(widths) == {200}


def test_a_picture_that_could_not_be_read_says_why(browser, made, everybody):
    row = everybody.rows[np.flatnonzero(everybody.place == 1)[0]]
    opened = go(browser, made()[1], f"find={row}&open={row}")
    assert "damaged or truncated" in one(opened, "#list .nothing").text
    assert "damaged or truncated" in one(opened, "#person-seen").text


def test_persons_are_found_by_label_and_by_what_was_said_of_it(opened, everybody):
    choose(opened, "label", "Happiness")
    mark = everybody.marks[:, everybody.labels.index("Happiness")]
    for error, kept in (
        ("", mark > 0),
        ("hit", mark == HIT),
        ("missed", mark == TRUE),
        ("wrong", mark == PREDICTED),
        ("true", (mark & TRUE) > 0),
        ("predicted", (mark & PREDICTED) > 0),
        ("all", mark >= 0),
    ):
        choose(opened, "error", error)
        wanted = everybody.rows[kept]
        assert counted(opened) == len(wanted), error
        assert set(tiles(opened)) <= set(wanted.tolist()) and len(tiles(opened)) > 10


def test_persons_are_found_by_any_error(opened, everybody):
    marks = everybody.marks
    for error, wanted in (
        ("right", ~((marks == TRUE) | (marks == PREDICTED)).any(axis=1)),
        ("hit", (marks == HIT).any(axis=1)),
        ("missed", (marks == TRUE).any(axis=1)),
        ("wrong", (marks == PREDICTED).any(axis=1)),
    ):
        choose(opened, "error", error)
        assert counted(opened) == wanted.sum(), error


@pytest.mark.parametrize("kind", ["single", "distribution"])
def test_of_one_label_persons_are_right_or_wrong(browser, made, kind):
    data, page = made(kind)
    opened = at(fresh(browser), page)
    right = (data.gallery.marks == HIT).any(axis=1)
    for error, wanted in (("right", right), ("wrong", ~right)):
        choose(opened, "error", error)
        assert counted(opened) == wanted.sum()
        if kind == "single":
            said = {e.text for e in opened.find_elements("css selector", ".tile .top span")}
            assert said == {error}


def test_persons_are_found_by_note_row_and_file(opened, everybody):
    choose(opened, "note", NO_FACE)
    assert counted(opened) == 80
    click(opened, "#reset")
    assert counted(opened) == 400
    one(opened, "#find").send_keys("Picture_00600")
    assert counted(opened) == 2 and sorted(tiles(opened)) == [1200, 1201]
    one(opened, "#find").clear()
    one(opened, "#find").send_keys("1399 ")
    assert counted(opened) == 1 and tiles(opened) == [1399]
    one(opened, "#find").send_keys("nobody")
    assert counted(opened) == 0 and tiles(opened) == []


def test_a_tile_tells_the_labels_and_the_score_of_the_one_asked_for(opened, everybody):
    name = "Happiness"
    label = everybody.labels.index(name)
    names = {TRUE: "missed", PREDICTED: "wrong", HIT: "hit"}
    told = (
        "const e = document.querySelector('#list li'); return [...e.querySelectorAll('.marks > "
        "span')].map(e => [e.className, e.textContent])"
    )
    for asked in ("", name):
        choose(opened, "label", asked)
        row = tiles(opened)[0]
        (place,) = np.flatnonzero(everybody.rows == row)
        marks = everybody.marks[place]
        wanted = [
            [names[mark], everybody.labels[n]]
            for mark in (HIT, TRUE, PREDICTED)
            for n in np.flatnonzero(marks == mark)
            if not (asked and n == label)
        ]
        if asked:
            score = f"{name} {everybody.scores[place, label]:.2f}"
            wanted.insert(0, [f"{names[marks[label]]} asked", score])
        more = len(wanted) - 6
        wanted = [*wanted[:6], ["soft", f"+{more}"]] if more > 0 else wanted
        assert opened.execute_script(told) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_is_sorted(browser, made, kind):
    data, page = made(kind)
    everybody = data.gallery
    opened = at(fresh(browser), page)
    worst = everybody.measure * (-1 if kind == "distribution" else 1)
    name = everybody.labels[1]
    scores = everybody.scores[:, 1].astype(np.float32)
    for order, label, keys in (
        ("best", "", -worst),
        ("worst", "", worst),
        ("row", "", everybody.rows),
        ("high", name, -scores),
        ("low", name, scores),
    ):
        choose(opened, "label", label)
        if label:
            choose(opened, "error", "all")
        choose(opened, "sort", order)
        wanted = everybody.rows[np.argsort(keys.astype(np.float32), kind="stable")]
        assert tiles(opened) == wanted[: len(tiles(opened))].tolist(), order
    choose(opened, "label", "")  # no order by the score of no label
    assert one(opened, "#sort").get_attribute("value") == "worst"


def test_all_of_it_by_keyboard(opened, everybody):
    from selenium.webdriver.common.keys import Keys

    order = everybody.rows[np.argsort(everybody.measure, kind="stable")].tolist()
    click(opened, "#reset")
    opened.execute_script("document.getElementById('reset').focus()")
    press(opened, Keys.TAB)
    if not opened.execute_script("return document.activeElement.matches('.tile')"):
        press(opened, Keys.TAB)  # a browser may stop at the box that scrolls
    assert focused(opened) == order[0]
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert focused(opened) == order[2]
    press(opened, Keys.ARROW_DOWN)
    across = order.index(focused(opened)) - 2
    assert across >= 4
    press(opened, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert focused(opened) == order[1]
    press(opened, Keys.END)
    assert focused(opened) == order[-1]
    press(opened, Keys.HOME, Keys.PAGE_DOWN)
    page = order.index(focused(opened))
    assert page >= across and page % across == 0
    press(opened, Keys.ENTER)
    assert card(opened) == order[page]
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert card(opened) == order[page + 1]
    assert f"{page + 2} of 400" in one(opened, "#person-name").text
    close(opened)
    assert focused(opened) == order[page + 1]
    press(opened, Keys.TAB)  # one stop in the list, and out of it
    assert not opened.execute_script("return document.activeElement.matches('.tile')")


def test_the_focus_stays_where_it_was_when_the_window_changes(opened):
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.querySelector('.tile').focus()")
    press(opened, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    row, before = focused(opened), shown(opened, ".tile")[0]["width"]
    size = {"width": 700, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        width = "document.querySelector('.tile').getBoundingClientRect().width"
        eventually(opened, f"return {width} !== {before}")
        assert focused(opened) == row
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_card_ends_at_both_ends(opened):
    click(opened, ".tile")
    before, after = one(opened, "#before"), one(opened, "#after")
    assert before.get_attribute("aria-disabled") == "true"
    assert after.get_attribute("aria-disabled") == "false"
    first = card(opened)
    before.click()
    assert card(opened) == first
    after.click()
    assert card(opened) != first and before.get_attribute("aria-disabled") == "false"
    close(opened, "#close")


def test_the_card_says_all_that_is_known_of_a_person(browser, made, everybody):
    place = int(np.argmax(np.diff(everybody.seen.first)))  # with most objects
    row = int(everybody.rows[place])
    opened = go(browser, made()[1], f"open={row}")
    assert card(opened) == row
    said = one(opened, "#person").text
    for words in (everybody.places[everybody.place[place]], f"{everybody.measure[place]:.2f}"):
        assert words in said
    rows = opened.execute_script(
        "return [...document.querySelectorAll('#person-answer .label-row')].map(e => ["
        "e.querySelector('.label').textContent, e.className.split(' ')[1],"
        "+e.querySelector('.n').textContent,"
        "parseFloat(e.querySelector('.limit').getAttribute('x1')),"
        "parseFloat(e.querySelector('.score').getAttribute('width'))])"
    )
    ranked = np.argsort(-everybody.scores[place], kind="stable")
    pain = everybody.labels.index("Pain")  # which nobody learned
    ranked = ranked[(ranked != pain) | (everybody.marks[place, pain] & TRUE > 0)]
    assert [row[0] for row in rows] == [everybody.labels[n] for n in ranked]
    names = {0: "neither", TRUE: "missed", PREDICTED: "wrong", HIT: "hit"}
    assert [row[1] for row in rows] == [names[everybody.marks[place, n]] for n in ranked]
    np.testing.assert_allclose([r[2] for r in rows], everybody.scores[place, ranked], atol=0.00501)
    np.testing.assert_allclose([r[3] for r in rows], 100 * everybody.thresholds[ranked], atol=1e-3)
    np.testing.assert_allclose([r[4] for r in rows], 100 * everybody.scores[place, ranked], 1e-5)
    seen, mine = everybody.seen, slice(*everybody.seen.first[place : place + 2].tolist())
    table = opened.execute_script(
        "return [...document.querySelectorAll('#person .objects tbody tr')].map("
        "r => [...r.cells].map(c => c.textContent))"
    )
    assert [row[0] for row in table] == [seen.classes[n] for n in seen.object_classes[mine]]
    assert [row[1] for row in table] == [f"{x:.2f}" for x in seen.object_scores[mine]]
    assert [row[2] for row in table] == [f"{x:.2f}" for x in seen.weights[mine]]
    lines = opened.execute_script(
        "return [...document.querySelectorAll('#person-seen .of-object')].map("
        "e => parseFloat(getComputedStyle(e).strokeWidth))"
    )
    assert lines == sorted(lines) and len(lines) == len(table)  # the heaviest on top
    assert len(shown(opened, "#person-seen .of-face")) == (0 if place % 5 == 0 else 1)
    label = one(opened, "#person-seen svg").get_attribute("aria-label")
    assert all(name in label for name in (f"person {row}", *(line[0] for line in table)))


def rows_of(opened) -> dict[str, list]:
    """label -> [kind, score, change, where the score with everything stands, the bar]."""
    return opened.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('#person-answer .label-row')]"
        ".map(e => [e.querySelector('.label').textContent, [e.className.split(' ')[1],"
        "+e.querySelectorAll('.n')[0].textContent, e.querySelector('.change')?.textContent,"
        "parseFloat(e.querySelector('.before')?.getAttribute('x1')),"
        "parseFloat(e.querySelector('.score').getAttribute('width'))]]))"
    )


def words(element) -> str:
    return " ".join(element.text.split())


def take(opened, text: str) -> None:
    """Choose what is taken away, by its words."""
    labels = opened.find_elements("css selector", ".taken label")
    wanted = [one for one in labels if words(one) == text]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", wanted[0])
    wanted[0].click()


def test_the_scores_move_where_something_is_taken_away(browser, made, everybody):
    found, seen = everybody.what_if, everybody.seen
    counts = np.diff(seen.first)
    at = int(np.argmax((counts[found.asked] > 1) & (found.asked % 5 > 0)))  # with objects and face
    place = int(found.asked[at])
    names = [seen.classes[n] for n in seen.object_classes[seen.first[place] :][: counts[place]]]
    weights = seen.weights[seen.first[place] :][: counts[place]]
    opened = go(browser, made()[1], f"open={everybody.rows[place]}")
    offered = [words(e) for e in opened.find_elements("css selector", ".taken label")]
    things = [f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True)]
    assert offered == ["nothing: all is there", "body", "the face", "any object", *things]
    whole = rows_of(opened)
    for text, scores in (
        ("body", found.without_view[at, 0]),
        ("any object", found.without_view[at, 2]),
        (things[1], found.without_object[found.first[at] + 1]),
    ):
        take(opened, text)
        rows = rows_of(opened)
        assert list(rows) == list(whole)  # their order stays
        for n, label in enumerate(everybody.labels):
            if label not in rows:
                assert label == "Pain"
                continue
            kind, score, change, before, bar = rows[label]
            had = everybody.scores[place, n]
            assert score == pytest.approx(scores[n], abs=0.0051)
            assert before == pytest.approx(100 * had, abs=0.01)
            assert bar == pytest.approx(100 * scores[n], abs=0.01)
            by = scores[n] - had
            if abs(by) > 0.0051:
                assert float(change.replace("−", "-")) == pytest.approx(by, abs=0.0051)
            predicted = scores[n] >= everybody.thresholds[n]
            if abs(scores[n] - everybody.thresholds[n]) > 1e-4:
                true = bool(everybody.marks[place, n] & TRUE)
                assert kind == {(True, True): "hit", (True, False): "missed",
                                (False, True): "wrong", (False, False): "neither"}[
                    true, bool(predicted)
                ]  # fmt: skip
    was = everybody.marks[place] & PREDICTED > 0
    now = scores >= everybody.thresholds
    said = one(opened, ".taken [role=status]").text
    for label, a, b in zip(everybody.labels, was, now, strict=True):
        assert (label in said) == (a != b), (label, said)
    take(opened, "the face")  # which moves nothing here
    assert {row[2] for row in rows_of(opened).values()} == {""}
    said = one(opened, ".taken [role=status]").text
    assert said == "Without it the same is predicted. Dotted: with everything."
    press(opened, "\ue013")  # up: another choice, and no other person
    assert card(opened) == everybody.rows[place]
    assert one(opened, ".taken :checked + span").text == "body"
    take(opened, "nothing: all is there")
    assert rows_of(opened) == whole


def test_the_next_person_is_asked_the_same(browser, made, everybody):
    """From card to card by the arrow keys, also where a choice has the focus."""
    opened = at(fresh(browser), made()[1])
    click(opened, ".tile")
    take(opened, "body")
    first = card(opened)
    press(opened, "\ue014")  # to the right
    assert card(opened) not in (first, None)
    (place,) = np.flatnonzero(everybody.rows == card(opened))
    (asked_as,) = np.flatnonzero(everybody.what_if.asked == place)
    assert one(opened, ".taken :checked + span").text == "body"
    for label, (_, score, *_) in rows_of(opened).items():
        wanted = everybody.what_if.without_view[asked_as, 0, everybody.labels.index(label)]
        assert score == pytest.approx(wanted, abs=0.0051)
    assert "Dotted: with everything" in one(opened, ".taken [role=status]").text


def test_labels_that_nobody_learned_are_left_out_unless_true(browser, made, everybody):
    pain = everybody.labels.index("Pain")
    has = everybody.marks[:, pain] & TRUE > 0
    for place in (int(np.argmax(has)), int(np.argmin(has))):
        opened = go(browser, made()[1], f"open={everybody.rows[place]}")
        assert ("Pain" in rows_of(opened)) == has[place]
        assert "1 label that no training person had" in one(opened, "#person-answer").text


def test_a_card_says_where_what_if_was_not_asked(browser, made, everybody):
    asked = set(everybody.what_if.asked.tolist())
    other = next(n for n in range(400) if n not in asked)
    opened = go(browser, made()[1], f"open={everybody.rows[other]}")
    assert not opened.find_elements("css selector", ".taken")
    said = one(opened, "#person-answer").text
    assert "the 200 persons with the worst answers (report.what_if)" in said
    assert "emocache serve" in said
    faceless = next(n for n in everybody.what_if.asked.tolist() if n % 5 == 0)
    opened = go(browser, made()[1], f"open={everybody.rows[faceless]}")
    assert "the face" not in one(opened, ".taken").text


def test_the_card_shows_the_depth_map_of_the_cache(browser, made, everybody):
    opened = go(browser, made()[1], f"open={everybody.rows[3]}")
    assert "depth by a made network, UNTRAINED, 8 × 8" in one(opened, "#person-seen").text
    levels = opened.execute_async_script(
        "const done = arguments[0], i = new Image();"
        "i.src = document.querySelector('.depth image').getAttribute('href');"
        "i.decode().then(() => {const c = document.createElement('canvas');"
        "c.width = i.naturalWidth; c.height = i.naturalHeight; const x = c.getContext('2d');"
        "x.drawImage(i, 0, 0);"
        "done([...x.getImageData(0, 0, c.width, c.height).data].filter((_, n) => n % 4 == 0))})"
    )
    maps = everybody.depth[everybody.place[3]]
    wanted = 255 * (maps - maps.min()) / (maps.max() - maps.min())
    np.testing.assert_allclose(levels, wanted.ravel(), atol=1)
    assert len(shown(opened, ".depth .of-person")) == 1


def test_shares_move_too(browser, made):
    data, page = made("distribution")
    found = data.gallery.what_if
    place = int(found.asked[0])
    opened = go(browser, page, f"open={data.gallery.rows[place]}")
    take(opened, "body")
    rows = opened.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('#person-answer .label-row')]"
        ".slice(1).map(e => [e.querySelector('.label').textContent,"
        " +e.querySelectorAll('.n')[1].textContent]))"
    )
    for label, score in zip(data.labels, found.without_view[0, 0], strict=True):
        assert rows[label] == pytest.approx(score, abs=0.0051)


def test_the_card_of_shares_and_of_recordings(browser, made):
    data, page = made("distribution")
    everybody = data.gallery
    opened = go(browser, page, f"open={everybody.rows[0]}")
    rows = opened.execute_script(
        "return [...document.querySelectorAll('#person-answer .label-row')].slice(1).map(e => ["
        "e.querySelector('.label').textContent,"
        "...[...e.querySelectorAll('.n')].map(n => +n.textContent)])"
    )
    found = {label: shares for label, *shares in rows}
    for n, label in enumerate(everybody.labels):
        wanted = [everybody.shares[0, n], everybody.scores[0, n]]
        np.testing.assert_allclose(found[label], wanted, atol=0.00501)
    assert f"KL {everybody.measure[0]:.4f}" in one(opened, "#person-answer").text
    data, page = made("recordings")
    opened = go(browser, page, f"open={data.gallery.rows[3]}")
    assert "window 3 to 63 s of S1.pkl#1" in one(opened, "#person-seen").text
    assert not opened.find_elements("css selector", "#everybody image, #person image")
    assert "object" not in one(opened, "#person").text


def test_the_address_keeps_what_is_shown(browser, made, everybody):
    _, page = made()
    opened = at(fresh(browser), page)
    assert asked(opened) == ""  # nothing is written before anything is asked
    choose(opened, "label", "Doubt/Confusion")
    choose(opened, "error", "missed")
    choose(opened, "sort", "high")
    wanted = "sort=high&label=Doubt%2FConfusion&error=missed"
    assert asked(opened) == f"#everybody?{wanted}"
    count, order = counted(opened), tiles(opened)
    click(opened, ".tile")
    address = asked(opened)
    assert address == f"#everybody?{wanted}&open={order[0]}"
    again = go(browser, page, address.partition("?")[2])
    assert (counted(again), tiles(again)[: len(order)], card(again)) == (count, order, order[0])
    close(again, "#close")
    assert asked(again) == f"#everybody?{wanted}"
    click(again, "nav a[href='#everybody']")  # a link to the section changes nothing
    assert counted(again) == count
    click(again, "#reset")
    assert asked(again) == "#everybody" and counted(again) == 400


def test_a_foreign_address_does_no_harm(browser, made):
    _, page = made()
    evil = quote("<img src=x onerror=alert(1)>")
    opened = go(browser, page, f"sort=gone&label={evil}&error=%00&note=9&open={evil}&find=%20")
    assert counted(opened) == 400 and card(opened) is None
    assert [one(opened, f"#{n}").get_attribute("value") for n in ("sort", "label")] == ["worst", ""]
    opened = go(browser, page, f"find={evil}")
    assert counted(opened) == 0 and one(opened, "#find").get_attribute("value")[0] == "<"
    assert not opened.find_elements("css selector", "#everybody img")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_scrolls_sideways(browser, made, kind):
    data, page = made(kind)
    opened = go(browser, page, f"label={quote(data.labels[0])}&error=all")
    inside = "every(e => e.scrollWidth <= e.clientWidth)"
    try:
        for width in (390, 1280):
            opened.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False},
            )
            eventually(  # tiles are laid out anew with the next frame
                opened,
                "return [document.documentElement, document.getElementById('list'),"
                f" ...document.querySelectorAll('.tile .top')].{inside}",
            )
            click(opened, ".tile")
            (box,) = shown(opened, "#person")
            assert 300 < box["width"] < width and box["height"] <= 844
            assert opened.execute_script(f"return [document.getElementById('person')].{inside}")
            close(opened, "#close")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_schemes(opened, scheme):
    in_scheme(opened, scheme)
    click(opened, ".tile")
    try:
        panel = luminance(opened, "#person", "backgroundColor")
        assert (panel > 0.5) == (scheme == "light")
        for selector, over in (
            ("#person-name", "#person"),
            ("#person-name small", "#person"),
            ("#person-answer .wrong", "#person"),
            ("#person .place", "#person"),
            ("#person .steps button", "#person .steps button"),
            (".tile", ".tile"),
            (".tile .missed", ".tile"),
            ("#find", "#find"),
            ("#sort", "#sort"),
            ("#finding label", "body"),
            ("#count", "body"),
        ):
            ground = luminance(opened, over, "backgroundColor")
            high, low = sorted([luminance(opened, selector, "color"), ground])[::-1]
            assert (high + 0.05) / (low + 0.05) >= 4.5, selector
    finally:
        in_scheme(opened, "light")


def test_everything_has_a_name_that_a_screen_reader_says(opened, everybody):
    for control in ("sort", "label", "error", "note", "find", "reset"):
        assert one(opened, f"#{control}").accessible_name
    first = one(opened, ".tile")
    place = int(np.argmin(everybody.measure))
    name = first.accessible_name
    assert name.startswith(f"person {everybody.rows[place]}, Jaccard")
    for n, mark in enumerate(everybody.marks[place].tolist()):
        assert (everybody.labels[n] in name) == (mark > 0)
    item = one(opened, "#list li")
    assert item.get_attribute("aria-posinset") == "1"
    assert item.get_attribute("aria-setsize") == "400"
    assert one(opened, "#count").aria_role == "status"
    click(opened, ".tile")
    dialog = one(opened, "#person")
    assert dialog.aria_role == "dialog" and dialog.accessible_name.startswith("person ")
    for control in ("before", "after", "close"):
        assert one(opened, f"#{control}").accessible_name


@pytest.mark.slow
def test_a_report_of_emotics_test_split_is_small_and_works(browser, tmp_path):
    """7,203 persons in 3,602 pictures, 26 labels, up to ten objects a person."""
    data = gallery_report(tmp_path, persons=7_203, objects=10, distinct=24)
    assert len(data.gallery.thumbnails) == 3_601
    page = pages.write(data, tmp_path / "report.html")
    assert 20e6 < page.stat().st_size < 60e6
    opened = at(browser, page)
    assert one(opened, "#count").text == "7,203 of 7,203 persons"
    assert len(tiles(opened)) < 60
    choose(opened, "label", "Anger")
    choose(opened, "error", "missed")
    wanted = (data.gallery.marks[:, data.labels.index("Anger")] == TRUE).sum()
    assert one(opened, "#count").text == f"{wanted} of 7,203 persons"
    click(opened, ".tile")
    press(opened, "\ue014")
    assert card(opened) == tiles(opened)[1]
    assert opened.get_log("browser") == []
