"""The review page in a real browser, its CSV, the sheet, decisions and capture histories."""

import base64
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from miewid_core.beyond_paper import review
from tests.browser import needs_browser

NASTY = '<img src=x onerror="document.title=1">&"\'</script><script>document.title=1</script>'


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Candidates, queries and known photos: four queries, the second without any date."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["q1", "=q2", "q3", "q4", "a", "b", "c"]
    for number, _ in enumerate(names):
        pixels = np.full((30, 60, 3), 30 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", exif=gps())
    rows = pd.DataFrame({"annotation_id": names, "species": "ant", "theta": 0.0})
    rows["path"] = [str(folder / f"{number}.jpg") for number in range(7)]
    rows["date"] = pd.to_datetime(["2024-05-01", None, "2024-05-03", "2024-05-03"] + 3 * [None])
    rows = rows.assign(x=0.0, y=0.0, w=60.0, h=30.0, name="", individual="", encounter="")
    queries, known = rows[:4].copy(), rows[4:].reset_index(drop=True)
    known["individual"] = ["ant/=1+1", f"ant/{NASTY}", "ant/c"]
    known["date"] = pd.to_datetime(["2023-01-01", "2023-01-01", "2023-01-02"])
    found = pd.DataFrame(
        [
            (query, rank + 1, known["individual"][rank], known["annotation_id"][rank], 0.9 - rank)
            for query, rank in itertools.product(names[:3], range(3))
        ],
        columns=["query", "rank", "individual", "match", "score"],
    )
    return found, queries, known


def gps():
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
    return exif


@pytest.fixture(scope="module")
def page(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "review.html"
    review.save_page(*tables, path, f"Title {NASTY} {{{{data}}}}", {"q1": f"note {NASTY}"})
    return path


class TestPage:
    def test_loads_nothing_and_runs_only_its_own_script(self, page):
        text = page.read_text()
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text).group(1)
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "{{policy}}" not in text

    def test_no_text_of_the_catalog_is_markup(self, page):
        text = page.read_text()
        assert "<img" not in text
        assert text.count("<script") == text.count("</script>") == 2
        assert "Title &lt;img" in text

    def test_thumbnails_keep_the_aspect_and_lose_the_place(self, page):
        text = page.read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
        assert len(data["images"]) == 7  # each photo once, however often it is a candidate
        for image in data["images"].values():
            raw = base64.b64decode(image)
            path = page.parent / "thumbnail.jpg"
            path.write_bytes(raw)
            with Image.open(path) as opened:
                assert opened.size == (60, 30)
                assert not opened.getexif()

    def test_is_the_same_for_the_same_tables(self, page, tables, tmp_path):
        title, notes = f"Title {NASTY} {{{{data}}}}", {"q1": f"note {NASTY}"}
        review.save_page(*tables, tmp_path / "again.html", title, notes)
        assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


@pytest.fixture
def opened(browser, page):
    """The page as for someone who has decided nothing yet."""
    browser.forget()
    browser.open(page)
    browser.events.clear()
    return browser


CLICK = "document.querySelector('#card{} input[value=\"{}\"]').click()"


@needs_browser
class TestInTheBrowser:
    def test_accept_new_and_reject_are_exported(self, opened, tables):
        for number, value in enumerate(["1", "new", "reject"]):
            opened.run(CLICK.format(number, value))
        assert opened.run("progress.textContent") == "3 of 4 decided"
        raw = opened.exported().read_bytes().decode("utf-8-sig")
        assert raw.split("\r\n")[0] == ",".join(f'"{name}"' for name in review.COLUMNS)
        assert '"\'=q2"' in raw  # not a formula
        rows = review.read(opened.downloads / "reviewed.csv")
        assert rows["query"].tolist() == ["q1", "=q2", "q3"]
        assert rows["decision"].tolist() == ["accept", "new", "reject"]
        assert rows["individual"].tolist() == [f"ant/{NASTY}", "new-2", ""]
        assert rows["score"].tolist()[0] == pytest.approx(-0.1)
        assert rows["date"].dt.day.tolist()[0::2] == [1, 3]

    def test_a_reload_keeps_the_choices_and_the_name(self, opened):
        opened.run(CLICK.format(0, "0"))
        opened.run(CLICK.format(2, "new"))
        typed = "const n = document.querySelector('#card2 input[type=text]');"
        opened.run(f"{typed} n.value = '@Zoë'; n.dispatchEvent(new Event('input'))")
        opened.reload("2 of 4 decided")
        checked = "[...document.querySelectorAll('input:checked')].map(i => i.name + i.value)"
        assert opened.run(checked) == ["card00", "card2new"]
        assert opened.run("document.querySelector('#card2 input[type=text]').value") == "@Zoë"
        assert review.read(opened.exported())["individual"].tolist() == ["ant/=1+1", "@Zoë"]
        assert "'@Zoë" in (opened.downloads / "reviewed.csv").read_text(encoding="utf-8")

    def test_undo_and_another_choice(self, opened):
        opened.run(CLICK.format(0, "0"))
        opened.run(CLICK.format(0, "2"))
        assert review.read(opened.exported())["individual"].tolist() == ["ant/c"]
        opened.run("document.querySelector('#card0 button').click()")
        assert review.read(opened.exported()).empty
        assert opened.run("document.querySelectorAll('input:checked').length") == 0

    def test_the_keyboard_is_enough(self, opened):
        for key in ["2", "r", "k", "k", "u", "3", "j", "n"]:
            opened.press(key)
        rows = review.read(opened.exported())
        assert rows["query"].tolist() == ["q1", "=q2", "q3"]
        assert rows["decision"].tolist() == ["accept", "reject", "new"]
        assert rows["individual"].tolist() == ["ant/c", "", "new-3"]

    def test_a_photo_without_candidates_can_be_new(self, opened):
        opened.run(CLICK.format(3, "new"))
        assert review.read(opened.exported())["individual"].tolist() == ["new-4"]
        opened.run("document.getElementById('open').click()")
        shown = "[...document.querySelectorAll('section')].filter(s => s.offsetParent).length"
        assert opened.run(shown) == 3

    def test_nothing_of_the_catalog_runs_or_is_fetched(self, opened, page):
        opened.open(page)
        assert opened.run("document.title").startswith("Title <img src=x")
        assert opened.run("document.querySelectorAll('img').length") == 4 + 9
        assert opened.run("[...document.images].every(i => i.naturalWidth > 0)")
        asked = [e["params"]["request"]["url"] for e in opened.events if "request" in e["params"]]
        assert all(url.startswith(("data:", "file:", "blob:")) for url in asked)
        assert not [
            e for e in opened.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
        opened.run(
            "const s = document.createElement('script'); s.text = 'x = 1'; document.body.append(s)"
        )
        assert opened.run("typeof x") == "undefined"  # the policy forbids any other script

    @pytest.mark.parametrize("pixels", [1280, 360])
    def test_fits_the_width_of(self, opened, pixels, tmp_path):
        opened.width(pixels)
        opened.screenshot(tmp_path / f"{pixels}.png")
        assert opened.run("document.documentElement.scrollWidth") <= pixels
        labels = "[...document.querySelectorAll('.photos > *')]"
        assert opened.run(f"Math.min(...{labels}.map(l => l.getBoundingClientRect().width))") > 120
        assert Path(tmp_path / f"{pixels}.png").stat().st_size > 10_000


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

    def test_the_sheet_filled_in_is_read_back(self, tables, tmp_path):
        sheet = review.sheet(*tables[:2])
        assert sheet["best_1"].tolist()[:3] == ["ant/=1+1"] * 3
        assert sheet["best_1"].isna()[3]
        sheet.loc[0, ["decision", "individual"]] = "Accept", "ant/=1+1"
        sheet.loc[1, ["decision", "individual"]] = "new", "-x"
        review.save_csv(sheet, tmp_path / "sheet.csv")
        rows = review.read(tmp_path / "sheet.csv")
        assert rows[["query", "decision", "individual"]].to_numpy().tolist() == [
            ["q1", "accept", "ant/=1+1"],
            ["=q2", "new", "-x"],
        ]

    def test_what_is_wrong_is_named_by_line(self, tables, tmp_path):
        sheet = review.sheet(*tables[:2])
        sheet.loc[0, "decision"] = "accept"
        sheet.loc[1, "decision"] = "maybe"
        sheet.loc[2, "date"] = "yesterday"
        review.save_csv(sheet, tmp_path / "sheet.csv")
        with pytest.raises(ValueError, match="line 3: decision is none") as caught:
            review.read(tmp_path / "sheet.csv")
        assert "line 2: accept and new need an individual" in str(caught.value)
        assert "line 4: date" in str(caught.value)
        review.save_csv(sheet.drop(columns="decision"), tmp_path / "sheet.csv")
        with pytest.raises(ValueError, match="no column decision"):
            review.read(tmp_path / "sheet.csv")


def test_who_knows_the_truth_decides_by_it(tables):
    found, queries, known = tables
    truth = ["ant/c", "ant/stranger", "", "ant/c"]  # the last has no candidates at all
    rows = review.decisions(found, queries.assign(individual=truth), known)
    assert rows["query"].tolist() == ["q1", "=q2", "q4"]
    assert rows["decision"].tolist() == ["accept", "new", "reject"]
    assert rows["individual"].tolist() == ["ant/c", "ant/stranger", ""]


def seen(names, dates, **columns):
    rows = pd.DataFrame({"species": "ant", "individual": list(names)})
    return rows.assign(date=pd.to_datetime(dates, format="ISO8601"), **columns)


def catalog_rows(names, dates, **columns):
    """Catalog rows of "ant", an annotation each; a name such as "a/left" has a side."""
    rows = pd.DataFrame({"annotation_id": [f"k{place}" for place in range(len(names))]})
    rows = rows.assign(species="ant", individual=[f"ant/{name}" for name in names])
    rows["name"] = [name.partition("/")[0] for name in names]
    return rows.assign(date=pd.to_datetime(dates), **columns)


class TestSightings:
    decided = pd.DataFrame({"query": list("pqr"), "decision": ["accept", "reject", "new"]}).assign(
        species="ant", individual=["ant/a", "", "Zoë"], date=pd.to_datetime(["2024-01-02"] * 3)
    )
    queries = pd.DataFrame({"annotation_id": list("pqr")})

    def test_rejected_photos_are_none(self):
        rows = catalog_rows(["a"], ["2024-01-01"])
        found = review.sightings(rows, self.queries, self.decided)
        assert found["individual"].tolist() == ["a", "a", "Zoë"]
        assert found["species"].tolist() == ["ant"] * 3

    def test_both_sides_are_one_animal(self):
        rows = catalog_rows(["a/left", "a/right", "b/left"], ["2024-01-01", "2024-01-05", None])
        decided = self.decided.assign(individual=["ant/a/right", "", "ant/b/left"])
        found = review.sightings(rows, self.queries, decided)
        table = review.capture_histories(found)
        assert table["individual"].tolist() == ["a", "b"]
        assert table["2024-01-02"].tolist() == [1, 1]
        assert table["2024-01-05"].tolist() == [1, 0]

    def test_animals_held_back_keep_their_days(self):
        """One photo of a new animal is reviewed; its others were taken all the same."""
        days = [f"2024-01-{day:02}" for day in range(1, 7)]
        rows = catalog_rows(["a"] * 6, days)
        queries = rows[:1]
        decided = self.decided[2:].assign(query="k0", individual="ant/a", date=rows["date"][0])
        found = review.sightings(rows, queries, decided)
        assert review.capture_histories(found).shape == (1, 2 + 6)
        undecided = review.sightings(rows, queries, decided[:0])
        assert review.capture_histories(undecided).shape == (1, 2 + 5)

    def test_sites_are_listed_where_given(self):
        rows = catalog_rows(["a", "a", "b"], ["2024-01-01"] * 3, site=["north", "", "south"])
        queries = self.queries.assign(site=["east", "", "west"])
        table = review.capture_histories(review.sightings(rows, queries, self.decided))
        assert table["site"].tolist() == ["west", "east; north", "south"]
        assert table.columns.tolist()[:3] == ["species", "individual", "site"]


class TestCaptureHistories:
    def test_one_where_an_individual_was_seen(self):
        dates = ["2024-01-05", "2024-01-05 13:00", "2024-01-07", "2024-02-01", None, "2024-03-01"]
        rows = seen(["a", "a", "b", "a", "b", ""], dates)
        daily = review.capture_histories(rows)
        days = ["2024-01-05", "2024-01-07", "2024-02-01"]
        assert daily.columns.tolist() == ["species", "individual", *days]
        assert daily.to_numpy().tolist() == [["ant", "a", 1, 0, 1], ["ant", "b", 0, 1, 0]]
        monthly = review.capture_histories(rows, "M")
        assert monthly.columns.tolist()[2:] == ["2024-01-01", "2024-02-01"]
        assert monthly.to_numpy().tolist() == [["ant", "a", 1, 1], ["ant", "b", 1, 0]]

    def test_one_name_in_two_species_is_two_animals(self):
        rows = seen("aa", ["2024-01-05", "2024-01-06"]).assign(species=["ant", "bee"])
        table = review.capture_histories(rows)
        assert table.to_numpy().tolist() == [["ant", "a", 1, 0], ["bee", "a", 0, 1]]

    def test_a_slow_count_agrees(self):
        generator = np.random.default_rng(0)
        days = generator.choice(pd.date_range("2024-01-01", periods=9), 30)
        rows = seen(generator.choice(list("abcd"), 30), days.astype(str))
        table = review.capture_histories(rows).drop(columns="species").set_index("individual")
        for (name, day), there in table.stack().items():
            rightly = (rows["individual"] == name) & (rows["date"] == pd.Timestamp(day))
            assert there == int(rightly.any())

    def test_nothing_dated_gives_no_occasion(self):
        table = review.capture_histories(seen("a", [None]))
        assert table.columns.tolist() == ["species", "individual"]

    def test_words_count_what_is_left_out(self):
        rows = seen("ab", ["2024-01-05", None])
        words = review.in_words(rows, review.capture_histories(rows))
        assert words == "1 animals on 1 occasions. 1 of 2 sightings have no date and don't count."

    def test_another_occasion_is_refused(self):
        with pytest.raises(ValueError, match="occasion is 'decade'"):
            review.capture_histories(pd.DataFrame(), "decade")
