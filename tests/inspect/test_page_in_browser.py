"""Pages as their readers use them, in Chromium. Skipped where there is none.

The fixture `show` also checks that no page has an error, a warning, or loads anything.
"""

import json
import re
import time

import pytest

from tests.helpers.pages import NASTY, box, finding, peaked, picture, predictions

KINDS = ["missing", "bad_side", "wrong_class"]


def findings(count=9):
    """Finding i has kind i % 3, class i % 2, and score (i + 1) / 10."""
    return [
        finding(i, KINDS[i % 3], (i + 1) / 10, name=["disk", "star"][i % 2]) for i in range(count)
    ]


def shown(page):
    """The ids of the cards that are seen, in their order."""
    return [int(x.get_attribute("data-id")) for x in page.tab.locator(".card:visible").all()]


def move_slider(page, score):
    page.tab.get_by_label("Score at least").fill(str(score))


def decided(page):
    with page.tab.expect_download() as waiting:
        page.tab.get_by_role("button", name="Download decisions").click()
    download = waiting.value
    return download.suggested_filename, json.loads(download.path().read_text())


def path_places(locator):
    """The numbers of an SVG path."""
    return [float(x) for x in re.findall(r"-?[\d.]+", locator.get_attribute("d"))]


def current(page):
    return int(page.tab.locator(".card[aria-current]").get_attribute("data-id"))


def press(page, keys):
    for key in keys.split():
        page.tab.keyboard.press(key)


# The sheet of findings


def test_a_card(show):
    page = show([finding(4, score=0.25)], title="Audit of mine", note="A note.")
    assert page.tab.title() == page.tab.locator("h1").inner_text() == "Audit of mine"
    assert page.texts(".note") == ["A note."]
    card = page.tab.get_by_role("article", name="bad side: disk, photo 4.jpg")
    for text in ("bad side: disk", "0.25", "Sentence 4.", "photo 4.jpg, finding 4"):
        assert text in card.inner_text()
    assert page.texts(".side") == ["top ±2.0", "bottom ±2.0", "⚠ left ±2.0", "right ±2.0"]
    card.get_by_text("Numbers, in pixels").click()
    rows = [row.inner_text().split("\t") for row in card.locator("tr").all()]
    assert rows == [
        ["", "left", "top", "right", "bottom"],
        ["prediction", "115.0", "60.0", "140.0", "80.0"],
        ["± std", "2.0", "2.0", "2.0", "2.0"],
        ["annotation", "107.0", "60.0", "140.0", "80.0"],
        ["apart, stds", "4.0", "0.0", "0.0", "0.0"],
    ]
    image = card.get_by_role("img", name="Part of photo 4.jpg")
    assert image.evaluate("async (x) => (await x.decode(), [x.naturalWidth, x.naturalHeight])") == [
        120,
        80,
    ]


def test_boxes_and_bars_lie_at_their_pixels(show):
    """The part begins at (100, 50) and is twice as large: x = 2 (x - 100), y = 2 (y - 50)."""
    page = show([finding(0)])
    lines = {
        role: path_places(page.tab.locator(f".overlay .line.{role}"))
        for role in ("annotation", "suggestion", "prediction")
    }
    assert lines["annotation"] == [14, 20, 80, 60, 14]  # M x0 y0 H x1 V y1 H x0
    assert lines["suggestion"] == lines["prediction"] == [30, 20, 80, 60, 30]
    assert path_places(page.tab.locator(".suspect-side")) == [14, 20, 60]
    # Bins are 2 px apart, 4 in the picture. Those with a probability are at the side and beside it.
    left, right = page.tab.locator(".under .chance").all()
    assert "suspect" in left.get_attribute("class") and "suspect" not in right.get_attribute(
        "class"
    )
    numbers = path_places(left)
    corners = list(zip(numbers[::2], numbers[1::2]))
    assert len(corners) == 3 * 4
    for k, (center, height) in enumerate([(34, 33.3), (30, 100), (26, 33.3)]):
        xs, ys = zip(*corners[4 * k : 4 * k + 4])
        assert sorted(set(xs)) == pytest.approx([center - 1.8, center + 1.8])
        assert sorted(set(ys)) == [0, height]
    assert path_places(page.tab.locator(".under .line.annotation").first) == [14, 0, 100]
    # On the screen: the strip's bars are below the side.
    photo = page.tab.locator(".photo").bounding_box()
    bars = left.bounding_box()
    x = photo["x"] + photo["width"] * 30 / 120
    assert bars["x"] + bars["width"] / 2 == pytest.approx(x, abs=0.6)
    assert 0 <= bars["y"] - (photo["y"] + photo["height"]) < 4
    top = page.tab.locator(".right .chance").first.bounding_box()
    assert top["y"] + top["height"] / 2 == pytest.approx(
        photo["y"] + photo["height"] * 20 / 80, abs=0.6
    )
    assert 0 <= top["x"] - (photo["x"] + photo["width"]) < 4


def test_filters_and_order(show):
    page = show(findings())
    assert shown(page) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert page.texts(".tick") == ["bad side (3)", "missing (3)", "wrong class (3)"]
    page.tab.get_by_label("missing (3)").uncheck()
    assert shown(page) == [8, 7, 5, 4, 2, 1]
    page.tab.get_by_role("combobox", name="Class").select_option("star (4)")
    assert shown(page) == [7, 5, 1]
    move_slider(page, 0.6)
    assert shown(page) == [7, 5] and page.texts("output") == ["0.60"]
    assert page.texts("#count") == ["0 of 9 decided, 2 shown."]
    move_slider(page, 0)
    page.tab.get_by_label("Order").select_option("lowest score first")
    assert shown(page) == [1, 5, 7]
    page.tab.get_by_label("missing (3)").check()
    page.tab.get_by_role("combobox", name="Class").select_option("all")
    assert shown(page) == list(range(9))
    page.tab.get_by_label("Show").select_option("open")
    page.tab.locator(".card").first.get_by_role("button", name="Accept").click()
    assert shown(page) == list(range(1, 9))
    page.tab.get_by_label("Show").select_option("accepted")
    assert shown(page) == [0]


def test_a_walk_with_the_keyboard(show):
    page = show(findings(6), name="mine")
    press(page, "j")
    assert current(page) == 5
    press(page, "ArrowDown ArrowRight k j ArrowLeft ArrowUp ArrowUp ArrowUp")
    assert current(page) == 5  # not beyond the first
    press(page, "a r s")
    assert current(page) == 2
    assert page.texts("#count") == ["3 of 6 decided, 6 shown."]
    assert page.tab.locator("#status").inner_text().strip() == (
        "Finding 3 skipped. wrong class: disk, score 0.30."
    )
    pressed = page.tab.locator("button[aria-pressed=true]").all()
    assert [x.get_attribute("value") for x in pressed] == ["accept", "reject", "skip"]
    press(page, "u u")
    assert current(page) == 4 and page.texts("#count") == ["1 of 6 decided, 6 shown."]
    press(page, "s A a")  # the letter counts, not its case
    assert decided(page) == (
        "mine.json",
        {
            "page": "Findings",
            "decisions": [
                {"id": 2, "decision": "accept"},
                {"id": 3, "decision": "accept"},
                {"id": 4, "decision": "skip"},
                {"id": 5, "decision": "accept"},
            ],
        },
    )
    press(page, "u u u u u")
    assert "Nothing to undo." in page.tab.locator("#status").inner_text()
    assert decided(page)[1]["decisions"] == []


def test_the_last_card_and_cards_that_disappear(show):
    page = show(findings(3))
    page.tab.get_by_label("Show").select_option("open")
    page.tab.locator("h1").click()
    press(page, "j a")
    assert shown(page) == [1, 0] and current(page) == 1
    press(page, "j r")
    assert shown(page) == [1] and current(page) == 1
    press(page, "s")
    assert shown(page) == [] and page.texts("#count") == ["3 of 3 decided, 0 shown."]
    press(page, "a j k")  # nothing is there to decide
    assert [x["decision"] for x in decided(page)[1]["decisions"]] == ["reject", "skip", "accept"]
    press(page, "u")
    assert shown(page) == [1]


def test_keys_that_are_not_for_the_cards(show):
    page = show(findings(3))
    press(page, "a r s u")  # no card is chosen yet
    press(page, "j Control+a")
    page.tab.get_by_role("combobox", name="Class").focus()
    press(page, "s")  # the choice of the star
    slider = page.tab.get_by_label("Score at least")
    slider.focus()
    press(page, "ArrowRight ArrowRight")
    assert slider.input_value() == "0.02" and current(page) == 2
    assert decided(page)[1]["decisions"] == []


def test_buttons(show):
    page = show(findings(3))
    card = page.tab.locator(".card[data-id='1']")
    reject = card.get_by_role("button", name="Reject")
    reject.click()
    assert current(page) == 1 and reject.get_attribute("aria-pressed") == "true"
    assert reject.evaluate("(x) => x === document.activeElement")
    card.get_by_role("button", name="Skip").click()
    assert decided(page)[1]["decisions"] == [{"id": 1, "decision": "skip"}]
    card.get_by_role("button", name="Skip").click()  # takes it back
    assert decided(page)[1]["decisions"] == []


def test_decisions_come_back_on_the_same_page_only(show):
    page = show(findings(3))
    press(page, "j a j s")
    again = show(findings(3))
    assert again.texts("#count") == ["2 of 3 decided, 3 shown."]
    assert [x["id"] for x in decided(again)[1]["decisions"]] == [0, 2]
    assert show(findings(4)).texts("#count") == ["0 of 4 decided, 4 shown."]
    assert show(findings(3), title="Other").texts("#count") == ["0 of 3 decided, 3 shown."]
    stored = page.tab.evaluate("Object.keys(localStorage)")
    assert len(stored) == 1 and stored[0].startswith("gfocal-")
    page.tab.evaluate("localStorage.setItem(Object.keys(localStorage)[0], '{damaged')")
    damaged = show(findings(3))
    assert "0 of 3 decided, 3 shown." in damaged.texts("#count")[0]


def test_500_cards_are_quick(show):
    page = show([finding(i, score=i / 500) for i in range(500)])
    drawn = "document.querySelectorAll('img[src]').length"
    page.tab.locator("img[src]").first.wait_for()
    assert page.tab.evaluate(drawn) < 60
    begun = time.perf_counter()
    press(page, "j " + "a " * 50)
    move_slider(page, 0.5)
    assert time.perf_counter() - begun < 5  # 0.9 s on two cores
    assert page.texts("#count") == ["50 of 500 decided, 250 shown."]
    page.tab.locator("[data-id='250']").scroll_into_view_if_needed()
    page.tab.locator("[data-id='250'] img[src]").wait_for()


def test_duplicates_have_two_annotations(show):
    item = finding(0, "duplicate", sides=())
    other = box((117, 62, 141, 82), "annotation")
    page = show([item._replace(boxes=[item.boxes[0], other, item.boxes[2]])])
    lines = page.tab.locator(".overlay .line.annotation")
    widths = [x.evaluate("(x) => getComputedStyle(x).strokeWidth") for x in lines.all()]
    assert widths == ["2px", "1px"]
    assert "annotation as it is (thin: another one)" in page.texts(".sample")


# The page of predictions


def test_the_box_under_the_pointer_shows_its_sides(show):
    first, second = (20, 30, 60, 70), (100, 40, 140, 110)
    boxes = [
        box(first, score=0.9, stds=(1, 2, 3, 4), **peaked(first)),
        box(second, name="star", score=0.8, stds=(5, 6, 7, 12), **peaked(second)),
    ]
    page = show([predictions(0, boxes)])
    assert page.texts(".caption") == [
        "disk 0.90, 40 x 40 px"
    ]  # the best one, until another is chosen
    assert path_places(page.tab.locator(".under .chance").first)[0] == pytest.approx(22.9)
    page.tab.get_by_role("button", name="star 0.80").hover()
    assert page.texts(".caption") == ["star 0.80, 40 x 70 px"]
    assert page.texts(".side") == ["top ±6.0", "bottom ±12", "left ±5.0", "right ±7.0"]
    bars = path_places(page.tab.locator(".right .chance").first)
    # The top is at y = 40, its bins 2 px apart; bars of the strip beside go to the right.
    assert bars[:8] == pytest.approx([0, 42.9, 33.3, 42.9, 33.3, 41.1, 0, 41.1])
    row = page.tab.locator("tbody tr").first.inner_text().split("\t")
    assert row == ["prediction", "100.0", "40.0", "140.0", "110.0"]
    page.tab.get_by_role("button", name="disk 0.90").click()
    assert page.texts(".caption") == ["disk 0.90, 40 x 40 px"]
    button = page.tab.get_by_role("button", name="disk 0.90").bounding_box()
    photo = page.tab.locator(".photo").bounding_box()
    scale = photo["width"] / 160
    assert button["x"] - photo["x"] == pytest.approx(20 * scale, abs=0.6)
    assert button["y"] - photo["y"] == pytest.approx(30 * scale, abs=0.6)
    assert button["width"] == pytest.approx(40 * scale, abs=0.6)


def test_boxes_with_the_keyboard(show):
    boxes = [box((20, 20, 50 + i, 60), name=f"n{i}", score=0.9 - i / 10) for i in range(3)]
    page = show([predictions(0, boxes), predictions(1, boxes[:1])])
    page.tab.get_by_label("Score at least").focus()
    press(page, "Tab")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.tab.evaluate(focused) == "n0 0.90"
    press(page, "ArrowRight ArrowDown ArrowDown")
    assert page.tab.evaluate(focused) == "n2 0.70"
    assert page.texts(".caption") == ["n2 0.70, 32 x 40 px", "n0 0.90, 30 x 40 px"]
    press(page, "ArrowLeft")
    assert page.tab.evaluate(focused) == "n1 0.80"
    press(page, "Tab")  # on to the next picture
    assert page.tab.locator(".card", has=page.tab.locator(":focus")).locator("h2").inner_text() == (
        "photo 1.jpg"
    )


def test_a_small_box_inside_a_large_one_can_be_reached(show):
    boxes = [box((60, 50, 80, 70), name="small", score=0.9), box((5, 5, 150, 115), score=0.8)]
    page = show([predictions(0, boxes)])
    photo = page.tab.locator(".photo").bounding_box()
    for x, y, name in ((20, 100, "disk"), (70, 60, "small")):
        scale = photo["width"] / 160
        page.tab.mouse.move(photo["x"] + x * scale, photo["y"] + y * scale)
        assert page.texts(".caption")[0].startswith(name)


def test_the_slider_and_the_classes_hide_boxes(show):
    boxes = [
        box((10 * i, 10, 10 * i + 8, 30), name=["disk", "star"][i % 2], score=0.1 + 0.2 * i)
        for i in range(4)
    ]
    page = show([predictions(0, boxes), predictions(1, boxes[:2])])
    labels = ["disk 0.50", "star 0.70", "star 0.30"]
    tags = page.tab.locator(".box:visible").all()
    assert sorted(x.get_attribute("aria-label") for x in tags) == sorted([*labels, "star 0.30"])
    assert page.texts("#count") == ["4 of 6 boxes shown, in 2 of 2 pictures."]
    move_slider(page, 0)
    assert page.texts("#count") == ["6 of 6 boxes shown, in 2 of 2 pictures."]
    page.tab.get_by_role("combobox", name="Class").select_option("disk (3)")
    assert page.tab.locator(".box:visible").count() == 3
    move_slider(page, 0.4)
    assert page.tab.locator(".box:visible").count() == 1
    assert page.texts(".caption") == ["disk 0.50, 8.0 x 20 px", "No box has this class and score."]
    assert page.tab.locator(".marker:visible").count() == 1


def test_low_scores_are_shown_where_there_are_no_others(show):
    page = show([predictions(0, [box((10, 10, 50, 50), score=0.2)])])
    assert page.texts("#count") == ["1 of 1 boxes shown, in 1 of 1 pictures."]


def test_only_standard_deviations_and_none(show):
    """A normal curve, centred on the side and as wide as the deviation, and a word that says so."""
    places = (40, 40, 120, 80)
    page = show([predictions(0, [box(places, score=0.9, stds=(4, 1, 2, 3))])])
    left = page.tab.locator(".under .chance.normal").first
    numbers = path_places(left)
    points = dict(zip(numbers[::2], numbers[1::2]))
    assert points[40.0] == 100 and points[44.0] == pytest.approx(60.7)  # exp(-1/2)
    assert page.texts(".side")[2] == "left ±4.0"
    assert "normal distributions" in page.texts("#intro")[0]

    page = show([predictions(0, [box(places, score=0.9)])])
    assert page.tab.locator(".right:visible, .under:visible, .chance, .guide").count() == 0
    assert page.texts(".caption") == ["disk 0.90, 80 x 40 px"]
    assert "does not say how sure" in page.texts("#intro")[0]

    item = finding(0)
    seen = item.boxes[2]._replace(probabilities=None, bin_edges=None)
    page = show([item._replace(boxes=[*item.boxes[:2], seen])])
    assert page.tab.locator(".chance.normal").count() == 4
    assert page.texts(".normal-note")[0].startswith("Normal distributions of these standard dev")
    page = show([item._replace(boxes=item.boxes[:1])])
    assert page.tab.locator(".chance").count() == 0
    assert page.tab.locator(".overlay .line").count() == 1


# Both


def test_nothing_to_show(show):
    assert show([]).texts(".nothing") == ["There is nothing to show."]
    page = show([predictions(0, [])])
    assert page.texts("#count") == ["0 of 0 boxes shown, in 0 of 1 pictures."]


def nasty_pages():
    item = finding(1, kind=NASTY, name=NASTY)
    told = item.finding._replace(text=NASTY)
    boxes = [box((20, 20, 60, 60), name=NASTY, score=0.9), box((1, 1, 9, 9), name="__proto__")]
    yield [item._replace(title=NASTY, finding=told)]
    yield [predictions(0, boxes)._replace(title=NASTY)]


@pytest.mark.parametrize("items", [*nasty_pages()], ids=["findings", "predictions"])
def test_names_are_text(show, items):
    page = show(items, title=NASTY, note=NASTY, name="a")
    assert page.tab.evaluate("window.injected") is None
    assert page.tab.locator("b[onclick]").count() == 0
    words = "</script><script>window.injected=1</script><!--<b onclick='x'>\"&amp;'"
    assert page.tab.title().startswith(words)
    for selector in ("h1", ".note", ".file", "option >> nth=1"):
        assert page.tab.locator(selector).first.inner_text().startswith(words)
    choice = page.tab.get_by_role("combobox", name="Class")
    choice.select_option(index=1)
    assert page.tab.locator(".card").count() == 1
    if items[0].finding:
        page.tab.locator("h1").click()
        press(page, "j a")
        assert decided(page)[1]["page"].startswith(words)
    else:
        assert page.texts("#count") == ["1 of 2 boxes shown, in 1 of 1 pictures."]


@pytest.mark.parametrize("width", [400, 1280])
def test_no_window_scrolls_sideways(show, width):
    long = "a_name_without_any_place_to_break_it_" * 4
    item = finding(1, kind=long, name=long)
    item = item._replace(title=long, finding=item.finding._replace(text=long))
    wide = item._replace(
        image=picture(40, 640), finding=item.finding._replace(id=2, kind="missing"), scale=4.0
    )
    tall = item._replace(image=picture(640, 30), finding=item.finding._replace(id=3))
    found = [box((2, 2, 158, 20), name=long, score=0.9), box((150, 100, 158, 118), score=0.8)]
    sheets = [[item, wide, tall], [predictions(0, found)._replace(title=long)]]
    for items in sheets:
        page = show(items, (width, 800), title=long, note=long)
        page.tab.locator("img[src]").first.wait_for()
        if items is sheets[0]:
            page.tab.locator("summary", has_text="Numbers").first.click()
        seen = "document.documentElement.scrollWidth"
        assert page.tab.evaluate(seen) == page.tab.evaluate("document.documentElement.clientWidth")
        # Nothing of a card is cut off either.
        for card in page.tab.locator(".card").all():
            assert card.evaluate("(x) => x.scrollWidth <= x.clientWidth")


def test_dark_and_without_motion(show):
    page = show(findings(2))

    def look():
        style = "getComputedStyle(document.body)"
        return page.tab.evaluate(f"[{style}.backgroundColor, {style}.color]")

    light = look()
    page.tab.emulate_media(color_scheme="dark", reduced_motion="reduce")
    dark = look()
    assert (
        sum(map(int, re.findall(r"\d+", light[0])))
        > 600
        > sum(map(int, re.findall(r"\d+", dark[0])))
    )
    assert light[1] != dark[1]
    press(page, "j")
    style = "getComputedStyle(document.querySelector('.card[aria-current]')).boxShadow"
    assert page.tab.evaluate(style) != "none"


def test_every_control_has_a_name(show):
    for items in (findings(2), [predictions(0, [box((1, 1, 9, 9), score=0.9)])]):
        page = show(items)
        page.tab.locator("img[src]").first.wait_for()
        controls = page.tab.locator("button, input, select, img, summary")
        assert controls.count() > 3
        nameless = [
            x.evaluate("(x) => x.outerHTML.slice(0, 80)")
            for x in controls.all()
            if not x.evaluate(
                "(x) => (x.labels?.[0] ?? x).innerText?.trim() || x.ariaLabel || x.alt"
            )
        ]
        assert nameless == []
