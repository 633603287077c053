"""The review page in a real browser, its CSV, the sheet, decisions and capture histories."""

import base64
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from miewid_core.beyond_paper.identify import review
from tests.browser import needs_browser, wait_for

NASTY = '<img src=x onerror="document.title=1">&"\'</script><script>document.title=1</script>'


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Candidates, queries and known photos: four queries, the second undated, the last alone."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["q1", "=q2", "q3", "q4", "a", "b", "c", "c2"]
    for number, _ in enumerate(names):
        pixels = np.full((300, 600, 3), 30 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=gps())
    rows = pd.DataFrame({"annotation_id": names, "species": "ant", "theta": 0.0})
    rows["path"] = [str(folder / f"{number}.jpg") for number in range(8)]
    rows["date"] = pd.to_datetime(["2024-05-01", None, "2024-05-03", "2024-05-03"] + 4 * [None])
    rows = rows.assign(x=0.0, y=0.0, w=600.0, h=300.0, name="", individual="", encounter="")
    rows["viewpoint"] = ["left", "right", "", "", "left", "right", "", "left"]
    rows["station"] = ["north", "", "", "", "north", "south", "", "south"]
    queries, known = rows[:4].copy(), rows[4:].reset_index(drop=True)
    known["individual"] = ["ant/=1+1", f"ant/{NASTY}", "ant/c", "ant/c"]
    known["date"] = pd.to_datetime(["2023-01-01", "2023-01-01", "2023-01-02", None])
    found = candidates_of(names[:3], known[:3], [[0.9, 0.6, 0.5], [0.8, 0.1, -0.1], [0.5, 0.4, 0]])
    return found, queries, known


def candidates_of(queries, known, scores):
    """As of `candidates.rank`: all of `known`, in this order, for each query."""
    return pd.DataFrame(
        [
            (query, rank + 1, known["individual"][rank], known["annotation_id"][rank], score)
            for query, row in zip(queries, scores, strict=True)
            for rank, score in enumerate(row)
        ],
        columns=["query", "rank", "individual", "match", "score"],
    )


def gps():
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return exif


@pytest.fixture(scope="module")
def page(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "review.html"
    notes = {"q1": f"note {NASTY}"}
    review.save_page(*tables, path, f"Title {NASTY} {{{{data}}}}", notes, "final network")
    return path


def content(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))


class TestPage:
    def test_loads_nothing_and_runs_only_its_own_script(self, page):
        text = page.read_text()
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
        images = "img-src 'self' file: data:"
        assert policy.startswith(f"default-src 'none'; {images}; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "{{policy}}" not in text

    def test_no_text_of_the_catalog_is_markup(self, page):
        text = page.read_text()
        assert "<img src=x" not in text
        assert text.count("<script") == text.count("</script>") == 2
        assert "Title &lt;img" in text

    def test_photos_keep_the_aspect_and_lose_the_place(self, page):
        photos = content(page)["photos"]
        assert len(photos) == 8  # each photo once, however often it is a candidate
        folder = page.with_name("review_photos")
        assert {path.stem for path in folder.iterdir()} == photos.keys()
        (page.parent / "thumbnails").mkdir()
        for key, photo in photos.items():
            thumbnail = page.parent / "thumbnails" / f"{key}.jpg"
            thumbnail.write_bytes(base64.b64decode(photo["image"]))
            for path, size in ((thumbnail, (200, 100)), (folder / f"{key}.jpg", (600, 300))):
                with Image.open(path) as opened:
                    assert opened.size == size
                    assert not opened.getexif()

    def test_a_candidate_has_its_nearest_photo_then_others(self, tables, page):
        candidates = content(page)["cards"][0]["candidates"]
        assert [len(candidate["photos"]) for candidate in candidates] == [1, 1, 2]
        photos = content(page)["photos"]
        assert [photos[key]["date"] for key in candidates[2]["photos"]] == ["2023-01-02", ""]

    def test_other_photos_are_of_the_queries_side_and_of_other_encounters(self, tables, tmp_path):
        _, queries, known = tables
        many = pd.concat([known[:1]] * 7, ignore_index=True)
        many["annotation_id"] = list("abcdefg")
        many["viewpoint"] = ["right", *["left"] * 5, "right"]
        many["encounter"] = ["1", "2", "2", "3", "", "4", "5"]
        many["date"] = pd.to_datetime([f"2024-01-0{day}" for day in range(1, 8)])
        found = candidates_of(["q1"], many, [[0.9]])
        review.save_page(found, queries[:1], many, tmp_path / "review.html", "")
        (card,) = content(tmp_path / "review.html")["cards"]
        photos = content(tmp_path / "review.html")["photos"]
        dates = [photos[key]["date"][-1] for key in card["candidates"][0]["photos"]]
        assert dates == ["1", "6", "5", "4"]  # not b and c of one encounter, nor the right side

    def test_enlarged_photos_of_an_earlier_page_go(self, tables, tmp_path):
        found, queries, known = tables
        review.save_page(found, queries, known, tmp_path / "review.html", "")
        review.save_page(found, queries[:1], known, tmp_path / "review.html", "")
        folder = tmp_path / "review_photos"
        assert {path.stem for path in folder.iterdir()} == content(tmp_path / "review.html")[
            "photos"
        ].keys()

    def test_is_the_same_for_the_same_tables(self, page, tables, tmp_path):
        title, notes = f"Title {NASTY} {{{{data}}}}", {"q1": f"note {NASTY}"}
        review.save_page(*tables, tmp_path / "review.html", title, notes, "final network")
        assert (tmp_path / "review.html").read_bytes() == page.read_bytes()


@pytest.fixture
def read(tables):
    """Reads decisions on the photos of `tables`."""
    return lambda path: review.read(path, *tables[1:])


@pytest.fixture
def opened(browser, page, read):
    """The page as for someone who has decided nothing yet."""
    browser.reviewed = lambda: read(browser.exported())
    browser.forget()
    browser.width(1200)
    browser.open(page)
    browser.events.clear()
    return browser


def text_of(browser, name):
    return browser.run(f"find('{name}').textContent")


def candidates_shown(browser):
    return browser.run("[...find('candidates').children].map(item => item.value)")


def zoomed(browser):
    """Percent by which both enlarged photos are moved right and down, and how much larger."""
    left, right = browser.run(
        "[...document.querySelectorAll('.pane img')].map(i => i.style.transform)"
    )
    assert left == right
    return pytest.approx([float(part) for part in re.findall(r"-?[\d.]+", left)], abs=0.2)


def first_pane(browser):
    box = "document.querySelector('.pane').getBoundingClientRect()"
    return browser.run(f"(b => [b.x, b.y, b.width, b.height])({box})")


@needs_browser
class TestInTheBrowser:
    def test_accept_new_and_reject_are_exported(self, opened, read):
        opened.click("#reviewer")
        opened.write("=Zoë")
        opened.click("#candidates li:nth-child(2) .choose")
        assert text_of(opened, "which") == "Photo 2 of 4"
        opened.click("#new")
        opened.click("#next")
        opened.click("input[value=possible]")
        opened.click("#reject")
        assert text_of(opened, "progress") == "3 of 4 decided"
        raw = opened.exported().read_bytes().decode("utf-8-sig")
        head = [*review.COLUMNS, *review.OPTIONAL]
        assert raw.split("\r\n")[0] == ",".join(f'"{name}"' for name in head)
        assert '"\'=q2"' in raw  # not a formula
        assert '"\'=Zoë"' in raw
        rows = read(opened.downloads / "reviewed.csv")
        assert rows["query"].tolist() == ["q1", "=q2", "q3"]
        assert rows["decision"].tolist() == ["accept", "new", "reject"]
        assert rows["individual"].tolist() == [f"ant/{NASTY}", "new-2", ""]
        assert rows["score"].tolist()[0] == 0.6
        assert rows["date"].dt.day.tolist()[0::2] == [1, 3]
        assert rows["certainty"].tolist() == ["certain", "certain", "possible"]
        assert rows["reviewer"].tolist() == ["=Zoë"] * 3
        assert rows["network"].tolist() == ["final network"] * 3
        assert text_of(opened, "network") == "Candidates by the final network"

    def test_a_reload_keeps_decisions_names_and_the_place(self, opened):
        opened.click("#reviewer")
        opened.write("Ada")
        opened.press("Tab")
        opened.press("1")
        opened.press("ArrowRight")
        opened.press("n")
        opened.write("@Zoë")
        opened.reload("2 of 4 decided")
        assert text_of(opened, "which") == "Photo 3 of 4"
        assert opened.run("find('name').value") == "@Zoë"
        assert opened.run("find('reviewer').value") == "Ada"
        assert opened.reviewed()["individual"].tolist() == ["ant/=1+1", "@Zoë"]
        assert "'@Zoë" in (opened.downloads / "reviewed.csv").read_text(encoding="utf-8")

    def test_undo_goes_back_to_where_the_change_was(self, opened):
        for key in ["1", "2", "u"]:
            opened.press(key)
        assert text_of(opened, "which") == "Photo 2 of 4"
        assert text_of(opened, "progress") == "1 of 4 decided"
        for key in ["ArrowLeft", "3", "u"]:  # another choice is a change, too
            opened.press(key)
        assert opened.reviewed()["individual"].tolist() == ["ant/=1+1"]
        opened.click("#undo")
        opened.press("u")
        assert text_of(opened, "said") == "There is nothing to undo."
        assert opened.reviewed().empty

    def test_certainty_changes_a_decision_before_and_after_it(self, opened):
        for key in ["c", "1", "2", "ArrowLeft", "c", "c"]:
            opened.press(key)
        assert opened.reviewed()["certainty"].tolist() == ["probable", "possible"]
        for key in ["ArrowLeft", "Delete"]:
            opened.press(key)
        assert opened.reviewed()["query"].tolist() == ["=q2"]

    def test_a_photo_without_candidates_can_be_new(self, opened):
        for key in ["ArrowRight", "ArrowRight", "ArrowRight", "1", "e", "ArrowRight", "n"]:
            opened.press(key)
        assert text_of(opened, "who") == "There are no candidates."
        assert opened.reviewed()["individual"].tolist() == ["new-4"]

    def test_photos_are_sorted(self, opened):
        seen = {}
        for order in ("score", "uncertainty"):
            opened.run(
                f"find('sort').value = '{order}'; find('sort').dispatchEvent(new Event('change'))"
            )
            seen[order] = [opened.run(f"data.cards[order[{place}]].query") for place in range(4)]
        assert seen["score"] == ["q1", "=q2", "q3", "q4"]
        assert seen["uncertainty"] == ["q3", "q1", "=q2", "q4"]
        opened.press("1")
        assert opened.reviewed()["query"].tolist() == ["q1"]
        assert opened.run("card().query") == "=q2"  # the next one of q3, q1, =q2, q4

    def test_a_filter_hides_candidates_and_is_stated(self, opened):
        set_to = "find('{}').value = '{}'; find('{}').dispatchEvent(new Event('change'))"
        opened.run(set_to.format("side", "same", "side"))
        assert candidates_shown(opened) == [1, 3]  # a photo of unknown side may be of any
        assert text_of(opened, "filter") == (
            "Filter: side as on the photo. 1 of 3 candidates hidden."
        )
        opened.press("2")
        assert text_of(opened, "said") == "There is no candidate 2."
        opened.run(set_to.format("site", "north", "site"))
        assert opened.run("document.querySelectorAll('#candidates .photo').length") == 2
        opened.run(set_to.format("from", "2023-01-02", "from"))
        assert candidates_shown(opened) == [3]
        opened.press("3")
        opened.run("find('unfilter').click()")
        assert candidates_shown(opened) == [1, 2, 3]
        assert text_of(opened, "filter") == ""
        opened.press("1")
        words = "side as on the photo, place north, taken from 2023-01-02"
        assert opened.reviewed()["filter"].tolist() == [words, ""]

    def test_photos_of_unknown_species_are_filtered_by_it(self, browser, tables, tmp_path):
        _, queries, known = tables
        queries, known = queries[:3].assign(species=["ant", "", "bee"]), known[:3].copy()
        known["species"], known["individual"] = ["ant", "bee", "bee"], ["ant/a", "bee/b", "bee/c"]
        found = candidates_of(queries["annotation_id"], known, [[0.9], [0.8, 0.7, 0.6], [0.9]])
        review.save_page(found, queries, known, tmp_path / "review.html", "")
        browser.forget()
        browser.open(tmp_path / "review.html")
        browser.press("1")
        browser.run("find('species').value = 'bee'; sortAndFilter()")
        assert text_of(browser, "which") == "Photo 1 of 2"
        assert candidates_shown(browser) == [2, 3]
        assert browser.run("document.querySelector('.choose').textContent") == "2 bee/b"
        browser.press("u")  # on a photo that the filter leaves out
        assert text_of(browser, "which") == "Photo 1 of 3"
        assert text_of(browser, "filter") == ""

    def test_a_key_held_down_decides_once(self, opened):
        held = {"type": "keyDown", "key": "1", "text": "1"}
        opened.call("Input.dispatchKeyEvent", **held)
        for _ in range(3):
            opened.call("Input.dispatchKeyEvent", autoRepeat=True, **held)
        assert text_of(opened, "progress") == "1 of 4 decided"

    def test_a_browser_that_keeps_nothing_says_so(self, opened):
        opened.run("Storage.prototype.setItem = () => { throw new Error('full'); }")
        opened.press("1")
        assert "export the decisions before you close" in text_of(opened, "trouble")

    def test_nothing_of_the_catalog_runs_or_is_fetched(self, opened, page):
        opened.open(page)
        assert opened.run("document.title").startswith("Title <img src=x")
        opened.press("e")
        assert opened.run("document.querySelectorAll('img').length") == 1 + 4 + 2
        wait_for(lambda: opened.run("[...document.images].every(i => i.naturalWidth > 0)"))
        asked = [e["params"]["request"]["url"] for e in opened.events if "request" in e["params"]]
        assert all(url.startswith(("data:", "file:", "blob:")) for url in asked)
        assert not [
            e for e in opened.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
        opened.run(
            "const s = document.createElement('script'); s.text = 'x = 1'; document.body.append(s)"
        )
        assert opened.run("typeof x") == "undefined"  # the policy forbids any other script

    @pytest.mark.parametrize("pixels", [1200, 375])
    def test_fits_the_width_of(self, opened, pixels):
        opened.width(pixels)
        wide = "document.documentElement.scrollWidth"
        assert opened.run(wide) <= pixels
        cards = "[...document.querySelectorAll('#candidates li')]"
        assert opened.run(f"Math.min(...{cards}.map(l => l.getBoundingClientRect().width))") > 120
        opened.run("document.querySelector('details').open = true")
        assert opened.run(wide) <= pixels
        opened.press("e")
        assert opened.run("find('pair').scrollWidth") <= pixels

    def test_a_screen_reader_is_told_what_all_things_are(self, opened):
        opened.run("document.querySelector('details').open = true")
        for key in ["1", "n", "Escape", "ArrowLeft", "e"]:
            unnamed = []
            for node in opened.call("Accessibility.getFullAXTree")["nodes"]:
                kind = node.get("role", {}).get("value")
                if kind in ("button", "image", "textbox", "combobox", "radio", "Date", "dialog"):
                    unnamed += [kind] * (not node.get("name", {}).get("value"))
            assert not unnamed
            opened.press(key)
        names = opened.run(
            "[...document.querySelectorAll('#candidates .photo img')].map(i => i.alt)"
        )
        assert names[0] == "Enlarge candidate 1, =1+1 · 2023-01-01 · left · north"


@needs_browser
class TestEnlarged:
    def test_two_photos_are_zoomed_and_moved_as_one(self, opened, page):
        opened.click("#candidates li:nth-child(3) .photo")
        wait_for(lambda: opened.run("[...document.images].every(i => i.naturalWidth > 0)"))
        shown = "[...document.querySelectorAll('.pane img')]"
        assert opened.run(f"{shown}.every(i => i.src.includes('/review_photos/'))")
        assert opened.run(f"{shown}.map(i => i.naturalWidth)") == [600, 600]
        assert opened.run(f"{shown}.every(i => i.alt)")
        assert zoomed(opened) == [0, 0, 1]
        x, y, width, height = first_pane(opened)
        wheel = {"type": "mouseWheel", "x": x + width / 4, "y": y + height / 2, "deltaX": 0}
        opened.call("Input.dispatchMouseEvent", deltaY=-400 * np.log(2), **wheel)
        wait_for(lambda: zoomed(opened) == [-25, -50, 2])
        opened.drag((x + 100, y + 100), (x + 100 + width / 10, y + 100))
        assert zoomed(opened) == [-15, -50, 2]
        opened.press("ArrowRight", shift=True)
        assert zoomed(opened) == [-25, -50, 2]
        for _ in range(20):
            opened.press("ArrowDown", shift=True)  # no further than the photo's edge
        assert zoomed(opened) == [-25, -100, 2]
        opened.press("f")
        assert zoomed(opened) == [0, 0, 1]
        opened.press("+")
        assert zoomed(opened) == [-25, -25, 1.5]

    def test_two_fingers_zoom(self, opened):
        opened.press("e")
        x, y, width, height = first_pane(opened)
        opened.call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
        for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
            middle = {"y": y + height / 2}
            points = [{"x": x + width / 2 + by, "id": by, **middle} for by in (-apart, apart)]
            points = [point | {"id": place} for place, point in enumerate(points)]
            opened.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        opened.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert zoomed(opened) == [-50, -50, 2]
        opened.call("Emulation.setTouchEmulationEnabled", enabled=False)

    def test_keys_go_through_candidates_and_their_photos_and_decide(self, opened):
        caption = "[...document.querySelectorAll('figcaption')].map(c => c.textContent)[1]"
        opened.press("e")
        assert opened.run(caption).startswith("1: =1+1")
        for key in ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft"]:
            opened.press(key)
        assert opened.run(caption) == "3: c · left · south · photo 2 of 2 · score 0.50"
        opened.press("Enter")  # on the button that has the focus: choose
        assert opened.run("find('pair').open")
        assert opened.run("find('pairing').textContent") == "Photo 2 of 4"
        opened.press("n")
        opened.write("Bo")
        opened.press("Enter")
        for key in ["e", "r", "Escape"]:
            opened.press(key)
        assert not opened.run("find('pair').open")
        rows = opened.reviewed()
        assert rows["individual"].tolist() == ["ant/c", "Bo", ""]

    def test_a_switch_lays_relevance_over_the_photos(self, browser, tables, tmp_path):
        """Of the query and its first candidate's nearest photo: red on the left half alone."""
        places = np.zeros((2, 8, 8))
        places[:, :, :4] = 1
        review.save_page(*tables, tmp_path / "review.html", "", maps={"q1": places})
        browser.forget()
        browser.open(tmp_path / "review.html")
        shown = "[...document.querySelectorAll('{} .map')].filter(i => i.offsetWidth).length"
        assert browser.run(shown.format("main")) == 0
        browser.press("m")
        assert browser.run(shown.format("main")) == 2
        sizes = "[...find('photo').children].map(i => i.naturalWidth / i.naturalHeight)"
        thumbnail, overlay = browser.run(sizes)
        assert overlay == pytest.approx(thumbnail, rel=0.05)
        browser.press("e")
        assert browser.run(shown.format(".panes")) == 2
        browser.press("ArrowDown")
        assert browser.run(shown.format(".panes")) == 0
        browser.press("Escape")
        browser.press("ArrowRight")
        assert browser.run(shown.format("main")) == 0

    def test_a_page_without_its_folder_says_so_and_enlarges_thumbnails(
        self, browser, page, tmp_path
    ):
        alone = tmp_path / "review.html"
        shutil.copy(page, alone)
        browser.forget()
        browser.open(alone)
        wait_for(lambda: browser.run("!find('missing').hidden"))
        assert "keep the folder “review_photos/” beside this page" in text_of(browser, "missing")
        browser.press("e")
        shown = "[...document.querySelectorAll('.pane img')].map(i => i.naturalWidth)"
        wait_for(lambda: browser.run(shown) == [200, 200])


@needs_browser
class TestImport:
    def test_earlier_decisions_come_back(self, opened, page):
        for key in ["c", "2", "n", "Enter", "r"]:
            opened.press(key)
        file = opened.exported().rename(opened.downloads / "earlier.csv")
        first = file.read_bytes()
        opened.forget()
        opened.open(page)
        opened.choose_file("#import", file)
        wait_for(lambda: text_of(opened, "progress") == "3 of 4 decided")
        assert text_of(opened, "said") == (
            "3 decisions imported. Left out: 0 on photos decided here already, "
            "0 that fit no photo of this page."
        )
        assert opened.exported().read_bytes() == first

    def test_a_spreadsheets_way_of_saving_is_read(self, opened, tmp_path):
        text = "Query;decision;individual;certainty\r\nq1;Accept; c ;\r\nq3;new;Zoë;possible\r\n"
        text += '"\'=q2";new;"a ""b"";\nc";\r\nq9;reject;;\r\nq4;accept;;\r\nq4;maybe;c;\r\n;;;\r\n'
        (tmp_path / "sheet.csv").write_bytes(text.encode("cp1252"))
        opened.press("1")
        opened.choose_file("#import", tmp_path / "sheet.csv")
        wait_for(lambda: text_of(opened, "progress") == "3 of 4 decided")
        assert text_of(opened, "said") == (
            "2 decisions imported. Left out: 1 on photos decided here already, "
            "3 that fit no photo of this page."
        )
        rows = opened.reviewed()
        assert rows["individual"].tolist() == ["ant/=1+1", 'a "b";\nc', "Zoë"]
        assert rows["certainty"].tolist() == ["certain", "", "possible"]
        opened.press("u")
        assert text_of(opened, "progress") == "1 of 4 decided"

    def test_one_who_is_no_candidate_here_stays_accepted(self, opened, tmp_path):
        (tmp_path / "sheet.csv").write_text("query,decision,individual\nq1,accept,ant/d\n")
        opened.choose_file("#import", tmp_path / "sheet.csv")
        wait_for(lambda: text_of(opened, "decision") == "Decided: ant/d.")
        with pytest.raises(ValueError, match="accepts an individual that isn't known"):
            opened.reviewed()

    def test_another_table_is_refused_in_words(self, opened, tmp_path):
        (tmp_path / "other.csv").write_text("a,b\n1,2\n")
        opened.choose_file("#import", tmp_path / "other.csv")
        wait_for(lambda: "no column query, decision, individual" in text_of(opened, "said"))


@pytest.fixture(scope="module")
def hundred(tables, tmp_path_factory):
    """The page of a hundred queries with ten candidates each, and its queries and known photos."""
    _, queries, known = tables
    queries = pd.concat([queries] * 25, ignore_index=True)
    queries["annotation_id"] = [f"q{number}" for number in range(100)]
    known = pd.concat([known] * 5, ignore_index=True)[:10]
    known["annotation_id"] = [f"k{number}" for number in range(10)]
    known["individual"] = [f"ant/animal {number}" for number in range(10)]
    found = candidates_of(queries["annotation_id"], known, [np.linspace(0.9, 0, 10)] * 100)
    path = tmp_path_factory.mktemp("hundred") / "review.html"
    review.save_page(found, queries, known, path, "A hundred", maps=maps_of(queries))
    return path, queries, known


def maps_of(queries):
    """As of `explain.overlays`: of each query and its first candidate, red anywhere."""
    places = np.random.default_rng(0).random((len(queries), 2, 8, 8))
    return dict(zip(queries["annotation_id"], places, strict=True))


@pytest.mark.slow
@needs_browser
def test_five_hundred_queries_by_ten_open_within_two_seconds(browser, tables, tmp_path):
    """5,500 photos, the first hundred queries with what their score rests on.

    The time is that of the page's thread on a processor: others may be busy.
    """
    _, queries, known = tables
    noise = np.random.default_rng(0).integers(0, 256, (22, 30, 3), np.uint8)
    Image.fromarray(noise).resize((200, 152)).save(
        tmp_path / "noise.jpg"
    )  # at least the bytes of real ones
    size = {"path": str(tmp_path / "noise.jpg"), "w": 200.0, "h": 152.0}
    queries = pd.concat([queries] * 125, ignore_index=True).assign(**size)
    queries["annotation_id"] = [f"q{number}" for number in range(500)]
    known = pd.concat([known] * 1250, ignore_index=True).assign(**size)
    known["annotation_id"] = [f"k{number}" for number in range(5000)]
    known["individual"] = known["annotation_id"].map("ant/{}".format)
    found = known.assign(query=queries["annotation_id"].repeat(10).to_numpy(), score=0.5)
    found = found.rename(columns={"annotation_id": "match"})
    found["rank"] = found.groupby("query").cumcount() + 1
    page = tmp_path / "review.html"
    review.save_page(found, queries, known, page, "Large", maps=maps_of(queries[:100]))
    assert 30e6 < page.stat().st_size < 60e6
    browser.forget()
    browser.call("Performance.enable", timeDomain="threadTicks")
    browser.open(page)
    assert text_of(browser, "progress") == "0 of 500 decided"
    assert len(candidates_shown(browser)) == 10
    spent = {one["name"]: one["value"] for one in browser.call("Performance.getMetrics")["metrics"]}
    assert spent["TaskDuration"] < 2


@needs_browser
def test_a_stranger_reviews_a_hundred_photos_without_the_mouse(browser, hundred):
    """Only keys are pressed, and only what the page shows decides which."""
    page, queries, known = hundred
    browser.forget()
    browser.width(1200)
    browser.open(page)
    browser.press("?")
    assert browser.run("find('help').open")
    browser.press("Escape")
    while browser.run("document.activeElement.id") != "reviewer":
        browser.press("Tab")
    browser.write("A stranger")
    browser.press("Tab")
    expected, mapped = [], False
    shown = "[...document.querySelectorAll('main .map')].filter(i => i.offsetWidth).length"
    for number in range(100):
        assert text_of(browser, "which") == f"Photo {number + 1} of 100"
        if number % 9 == 4:  # what the score rests on, shown or hidden
            browser.press("m")
            mapped = not mapped
        assert browser.run(shown) == 2 * mapped
        decision, individual, certainty = "accept", f"ant/animal {number % 10}", "certain"
        if number % 12 == 3:  # a new animal, named in one case
            decision, individual = "new", "Nova" if number == 3 else f"new-{number + 1}"
            browser.press("n")
            if number == 3:
                browser.write("Nova")
            browser.press("Enter")
        elif number % 12 == 5:
            decision, individual, certainty = "reject", "", "possible"
            for key in ["c", "c", "r"]:
                browser.press(key)
        elif number % 12 == 7:  # enlarged, the candidates one by one, and Enter chooses
            for key in ["e", *["ArrowDown"] * (number % 10), "+", "Enter", "Escape"]:
                browser.press(key)
        elif number % 12 == 9:  # a slip, taken back
            for key in ["r", "u", str((number + 1) % 10)]:
                browser.press(key)
        elif number % 12 == 11:  # Tab to a candidate's button
            for key in ["ArrowDown"] * (number % 10 + 1):
                browser.press(key)
            while browser.run("document.activeElement.className") != "choose":
                browser.press("Tab")
            browser.press("Enter")
        else:
            browser.press(str((number + 1) % 10))
        expected.append((decision, individual, certainty))
    assert text_of(browser, "said") == "All are decided: export the decisions."
    assert text_of(browser, "progress") == "100 of 100 decided"
    file = browser.downloads / "reviewed.csv"
    file.unlink(missing_ok=True)
    browser.press("s")
    wait_for(file.exists)
    rows = review.read(file, queries, known)
    assert (
        list(zip(rows["decision"], rows["individual"], rows["certainty"], strict=True)) == expected
    )
    assert set(rows["reviewer"]) == {"A stranger"}


class TestCsv:
    @pytest.mark.parametrize(
        "text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "  =1", "'=1", "＝1", "＠x"]
    )
    def test_formulas_are_neutralised(self, text):
        assert review.neutral(text) == "'" + text

    @given(st.text())
    def test_every_text_comes_back(self, text):
        assert review.original(review.neutral(text)) == text
        assert review.neutral(text).lstrip()[:1] not in tuple("=+-@＝＋－＠")

    def test_the_sheet_filled_in_is_read_back(self, tables, read, tmp_path):
        sheet = review.sheet(*tables[:2])
        assert sheet["best_1"].tolist()[:3] == ["ant/=1+1"] * 3
        assert sheet["best_1"].isna()[3]
        sheet.loc[0, ["decision", "individual"]] = "Accept", "ant/=1+1"
        sheet.loc[1, ["decision", "individual"]] = "new", "-x"
        review.save_csv(sheet, tmp_path / "sheet.csv")
        rows = read(tmp_path / "sheet.csv")
        assert rows[["query", "decision", "individual"]].to_numpy().tolist() == [
            ["q1", "accept", "ant/=1+1"],
            ["=q2", "new", "-x"],
        ]

    def test_what_is_wrong_is_named_by_line(self, tables, read, tmp_path):
        sheet = review.sheet(*tables[:2])
        sheet.loc[0, "decision"] = "accept"
        sheet.loc[1, "decision"] = "maybe"
        sheet.loc[2, "date"] = "yesterday"
        review.save_csv(sheet, tmp_path / "sheet.csv")
        with pytest.raises(ValueError, match="line 3: decision is none") as caught:
            read(tmp_path / "sheet.csv")
        assert "line 2: accept and new need an individual" in str(caught.value)
        assert "line 4: date" in str(caught.value)
        review.save_csv(sheet.drop(columns="decision"), tmp_path / "sheet.csv")
        with pytest.raises(ValueError, match="no column decision"):
            read(tmp_path / "sheet.csv")

    def test_certainty_and_reviewer_are_optional_but_one_of_three(self, tables, read, tmp_path):
        sheet = review.sheet(*tables[:2])
        sheet.loc[:2, ["decision", "reviewer"]] = "reject", "Zoë"
        sheet.loc[:2, "certainty"] = ["", "Possible ", "perhaps"]
        review.save_csv(sheet, tmp_path / "sheet.csv")
        words = "line 4: certainty is none of certain, probable, possible"
        with pytest.raises(ValueError, match=words) as caught:
            read(tmp_path / "sheet.csv")
        assert str(caught.value).count("line") == 1
        review.save_csv(sheet[:2], tmp_path / "sheet.csv")
        rows = read(tmp_path / "sheet.csv")
        assert rows[review.OPTIONAL[:2]].to_numpy().tolist() == [["", "Zoë"], ["possible", "Zoë"]]
        review.save_csv(sheet.drop(columns=["certainty", "reviewer"]), tmp_path / "sheet.csv")
        assert (read(tmp_path / "sheet.csv")[review.OPTIONAL] == "").all(axis=None)


def test_who_knows_the_truth_decides_by_it(tables):
    found, queries, known = tables
    truth = ["ant/c", "ant/stranger", "", "ant/c"]  # the last has no candidates at all
    rows = review.decisions(found, queries.assign(individual=truth), known)
    assert rows["query"].tolist() == ["q1", "=q2", "q4"]
    assert rows["decision"].tolist() == ["accept", "new", "reject"]
    assert rows["individual"].tolist() == ["ant/c", "ant/stranger", ""]
