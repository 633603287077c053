"""The report: the print beside what was made, after any run, and nothing from the network."""

import base64
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from miewid_core import figures
from miewid_core.files import ABOUT
from miewid_core.paper import report
from miewid_core.paper.printed import printed_table
from miewid_core.runs import manifest, notebooks
from tests.browser import needs_browser, wait_for

NASTY = "<img src=http://x.y/z.png onerror=alert(1)>"
TABLE = pd.DataFrame({"species": ["ant", "bee"], "multi": [64.8, 37.7]})
PROSE = """## Table 2: top-1

A first paragraph.

Accuracy $s \\cdot \\cos(\\theta_1) * 2$ in percent, of [unseen species](05_unseen.ipynb) and by
[the loss](../miewid_core/loss.py), not `$HOME * $PATH`:"""


def rich(kind, content):
    return new_output("display_data", data={kind: content})


def words(text):
    return rich("text/markdown", text)


def picture():
    return base64.b64encode(figures.Figure("A figure", 1).png()).decode()


def cells(title, alt=""):
    wide = pd.concat([TABLE] + 20 * [TABLE["multi"]], axis=1)
    conclusion = new_code_cell("x", outputs=[words("- Multi is better.\n- By $x_1$.")])
    conclusion.metadata["tags"] = ["conclusion"]
    printed = new_output("stream", name="stdout", text="x" * 500)
    shown, drawn = rich("text/html", wide.to_html()), rich("image/png", picture())
    drawn.metadata["image/png"] = {"alt": alt} if alt else {}
    return [
        new_markdown_cell(f"# {title}\n\nIt proves no claim of the paper."),
        new_code_cell("answer = ...", outputs=[words("**Answer:** Multi wins.")]),
        new_markdown_cell(PROSE),
        new_code_cell('study.save("table2_multi_single", table)', outputs=[printed, shown]),
        new_markdown_cell("$$ \\frac{a}{b} $$\n\nThe same as a figure:"),
        new_code_cell('study.save("figure1", table, f)', outputs=[drawn]),
        conclusion,
    ]


class Folder:
    """A folder of figures as runs leave it, and the notebooks that there are."""

    def __init__(self, tmp_path, monkeypatch):
        self.path, self.notebooks = tmp_path / "demo", tmp_path / "notebooks"
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(notebooks, "FOLDER", self.notebooks)
        self.notebooks.mkdir()
        for name in ("04_multi", "05_unseen", "12_yours"):
            alt = "Two dots." if name == "05_unseen" else ""
            made = new_notebook(cells=cells(f"{name[:2]} · Of {name[3:]}", alt))
            nbformat.write(made, self.notebook(name))

    def notebook(self, name):
        return self.notebooks / f"{name}.ipynb"

    def run(self, name, parameters=None, more=(), ended="now"):
        """Leave what the runner leaves of a notebook: an executed copy, files, the manifest."""
        executed = nbformat.read(self.notebook(name), 4)
        executed.cells += more
        executed.metadata["papermill"] = {"parameters": parameters or {}, "end_time": ended}
        (self.path / "notebooks").mkdir(parents=True, exist_ok=True)
        nbformat.write(executed, self.path / "notebooks" / f"{name}.ipynb")
        self.save(name, parameters)

    def save(self, name, parameters=None):
        self.monkeypatch.setenv(ABOUT, notebooks.about(self.notebook(name), parameters or {}))
        manifest.save(self.path, "table2_multi_single", TABLE, runs=["c0ffee"])
        manifest.save(self.path, "figure1", TABLE, figures.Figure("A figure", 1), ["c0ffee"])

    def write(self, **given):
        """The page's text, and each section of it."""
        text = report.write(self.path, given.get("catalog", "demo"), given).read_text()
        parts = re.findall(r'<section id="(\w+)".*?</section>', text, re.DOTALL)
        assert parts == ["04_multi", "05_unseen", "12_yours"]
        whole = re.findall(r"<section id=.*?</section>", text, re.DOTALL)
        return text, dict(zip(parts, whole, strict=True))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    return Folder(tmp_path, monkeypatch)


class Sources(HTMLParser):
    """All that a page makes a browser load or run."""

    def __init__(self, text):
        super().__init__()
        self.found, self.images, self.style = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.style = tag == "style"
        loading = {"src", "srcset", "poster", "data", "background", "action", "formaction"}
        self.found += [given[name] or "" for name in loading & given.keys()]
        self.found += [tag] * (tag in ("script", "iframe", "object", "embed", "base", "link"))
        self.found += [name for name in given if name.startswith("on")]
        self.found += re.findall(r"url\(.*?\)|@import", given.get("style") or "")
        self.images += [given] * (tag == "img")

    def handle_data(self, data):
        self.found += re.findall(r"url\(.*?\)|@import", data) * self.style


def test_printed_and_made_stand_side_by_side(folder):
    folder.run("04_multi")
    _, sections = folder.write()
    printed, made = sections["04_multi"].split("<h3>Here</h3>")
    assert "Printed: Table 2" in printed
    assert "<td>amur tiger</td>\n      <td>99.1</td>\n      <td>92.7</td>" in printed
    assert "<td>64.8</td>" in made
    assert '<img src="figure1.png" alt="figure1: The same as a figure."' in made
    for file in (
        "table2_multi_single.csv",
        "figure1.csv",
        "notebooks/04_multi.html",
        "MANIFEST.json",
    ):
        assert f'href="{file}"' in made
    assert "<code>make figures ONLY=04</code>" in made
    assert "c0ffee" in made
    assert "<li>Multi is better.</li>" in printed


def test_what_was_not_made_says_how_to_make_it(folder):
    folder.run("04_multi", {"catalog": "my photos", "trainings": 2, "sides_differ": ["ant", "bee"]})
    text, sections = folder.write(catalog="my photos")
    assert "Of 3 notebooks: 1 made, 2 not made yet." in text
    assert "<code>make figures ONLY=05 &#39;CATALOG=my photos&#39;</code>" in sections["05_unseen"]
    command = "ONLY=04 &#39;CATALOG=my photos&#39; SIDES_DIFFER=ant,bee TRAININGS=2"
    assert f"<code>make figures {command}</code>" in sections["04_multi"]
    assert "DRAWN" not in text
    assert "my photos" in text.split("</h1>")[0]


def test_skipped_and_failed_notebooks_say_why(folder):
    skipped = new_code_cell("x", outputs=[words("**Skipped:** it needs 2 species.")])
    failed = new_output("error", ename="ValueError", evalue=f"no {NASTY}", traceback=[NASTY])
    folder.run("04_multi", more=[skipped])
    folder.run("05_unseen", more=[new_code_cell("x", outputs=[failed])])
    folder.run("12_yours", ended=None)
    text, sections = folder.write()
    assert "1 skipped, 2 failed" in text
    assert "<strong>Skipped:</strong> it needs 2 species." in sections["04_multi"]
    assert "<strong>Failed:</strong> ValueError: no &lt;img" in sections["05_unseen"]
    assert "<strong>Failed:</strong> it stopped before its end" in sections["12_yours"]


def test_the_committed_notebook_stands_for_one_that_did_not_run_here(folder):
    folder.save("04_multi")
    folder.save("05_unseen", {"epochs": 1})  # whose results are of another run
    _, sections = folder.write()
    assert "these are the committed results" in sections["04_multi"]
    assert "not made yet" in sections["05_unseen"]
    made = nbformat.read(folder.notebook("04_multi"), 4)
    made.cells[1].source += "\n# changed"
    nbformat.write(made, folder.notebook("04_multi"))
    assert "not made yet" in folder.write()[1]["04_multi"]


def test_an_empty_folder_has_a_page(folder):
    text, _ = folder.write()
    assert "DRAWN ANIMALS" in text
    assert "Of 3 notebooks: 3 not made yet." in text


def test_notices_on_the_catalog_are_shown_as_text(folder):
    notices = pd.DataFrame({"row": [1, 2], "what": [NASTY, "twin"], "done": ["kept", "kept"]})
    folder.path.mkdir()
    notices.to_csv(folder.path / "catalog_notices.csv", index=False)
    text, _ = folder.write()
    assert "2 notices on the catalog" in text
    assert "&lt;img src=http" in text
    assert "<img" not in text


def with_a_claim(folder):
    folder.path.mkdir()
    cost = {"limit": [1], "cost_1": [9.04], "cost_1_low": [5.0], "cost_1_high": [13.0]}
    pd.DataFrame(cost).to_csv(folder.path / "figure3_cost.csv", index=False)
    return folder.write()


def test_claims_that_the_tables_answer_stand_first(folder):
    text, _ = with_a_claim(folder)
    head = text.partition('<nav id="contents"')[0]
    assert "Does each claim hold here?" in head
    assert re.search("9.0 \\(5.0 to 13.0\\).*holds", head, re.DOTALL)


def test_pages_load_nothing_from_the_network(folder):
    names = ("04_multi", "05_unseen", "12_yours")
    for name in names:
        folder.run(name)
    folder.write()
    for name in ("index.html", *(f"notebooks/{name}.html" for name in names)):
        text = (folder.path / name).read_text()
        found = Sources(text)
        assert found.images
        assert all(image["alt"] for image in found.images)
        assert all(re.match(r"data:image/|[\w/]+\.png$", source) for source in found.found)
        assert "default-src 'none'" in text  # and a browser would load nothing else


def test_a_notebook_is_a_page_with_formulas_and_links_that_hold(folder):
    folder.run("04_multi")
    folder.write()
    text = (folder.path / "notebooks" / "04_multi.html").read_text()
    assert text.count("<math") == 3
    assert len(re.findall('<math[^>]*display="block"', text)) == 1
    assert "<code>$HOME * $PATH</code>" in text
    assert 'href="../index.html#05_unseen"' in text
    (loss,) = re.findall(r'href="([^"]+loss\.py)"', text)
    assert (folder.path / "notebooks" / loss).resolve() == report.ROOT / "miewid_core" / "loss.py"
    folder.run("05_unseen")
    folder.write()
    text = (folder.path / "notebooks" / "04_multi.html").read_text()
    assert 'href="05_unseen.html"' in text


def test_a_figure_is_described_by_itself_or_by_the_prose_before_it(folder):
    for name, alt in (("04_multi", "The same as a figure."), ("05_unseen", "Two dots.")):
        folder.run(name)
        assert re.search(f'<img src="figure1.png" alt="(figure1: )?{alt}"', folder.write()[1][name])
        text = (folder.path / "notebooks" / f"{name}.html").read_text()
        assert [image["alt"] for image in Sources(text).images] == [alt]


def test_the_same_again_leaves_every_byte(folder):
    folder.run("04_multi")
    assert folder.write() == folder.write()


def test_what_is_said_of_the_paper_fits_its_tables_and_our_notebooks():
    regenerated = pd.read_csv(report.REGENERATED, dtype=str, keep_default_na=False)
    for paper in regenerated.to_dict("records"):
        (path,) = (report.ROOT / "notebooks").glob(f"{paper['notebook']}_*.ipynb")
        sources = (cell.source for cell in nbformat.read(path, 4).cells)
        saved = [name for source in sources for name in report.SAVED.findall(source)]
        assert paper["here"] in ["", *saved]
        if paper["table"]:
            assert set(paper["columns"].split()) <= set(printed_table(int(paper["table"])))
        assert bool(paper["table"]) == bool(paper["here"])


@pytest.fixture
def opened(folder, browser):
    folder.run("04_multi")
    folder.run("12_yours")
    folder.write()
    browser.forget()
    browser.open(folder.path / "index.html")
    return browser


@needs_browser
class TestInTheBrowser:
    def test_pictures_are_shown_and_nothing_else_is_asked_for(self, opened, folder):
        opened.events.clear()
        for page in ("index.html", "notebooks/04_multi.html"):
            opened.open(folder.path / page)
            opened.run("for (const image of document.images) image.loading = 'eager'")
            wait_for(lambda: opened.run("[...document.images].every(i => i.naturalWidth > 0)"))
            assert opened.run("document.images.length") > 0
        asked = [e["params"]["request"]["url"] for e in opened.events if "request" in e["params"]]
        assert all(url.startswith(("data:image", "file:")) for url in asked)
        assert not [e for e in opened.events if e["method"] == "Log.entryAdded"]

    @pytest.mark.parametrize("pixels", [1200, 375])
    def test_fits_the_width_of(self, opened, folder, pixels):
        for page in ("index.html", "notebooks/04_multi.html"):
            opened.width(pixels)
            opened.open(folder.path / page)
            assert opened.run("document.documentElement.scrollWidth") <= pixels

    @pytest.mark.parametrize("pixels", [1200, 360])
    def test_each_claim_is_seen_with_its_verdict_at_the_width_of(self, folder, browser, pixels):
        with_a_claim(folder)
        browser.forget()
        browser.width(pixels)
        browser.open(folder.path / "index.html")
        cells = "[...document.querySelectorAll('#claims td')].filter(cell => cell.textContent)"
        assert browser.run(f"{cells}.at(-1).textContent") == "holds"
        ends = browser.run(f"{cells}.map(cell => cell.getBoundingClientRect().right)")
        assert 0 < min(ends) <= max(ends) <= pixels

    def test_the_keyboard_reaches_tables_and_links(self, opened):
        reached = set()
        for _ in range(60):
            opened.press("Tab")
            active = "document.activeElement"
            reached.add(opened.run(f"{active}.className || {active}.hash"))
        assert {"skip", "box", "#04_multi"} <= reached
