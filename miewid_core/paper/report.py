"""The report: one page on a folder of figures, in the paper's order, beside what the paper prints.

It is made of what lies in the folder (tables, figures, MANIFEST.json) and of the executed notebooks
in its folder `notebooks`, whichever of them are there. Its pages load nothing from the network.
"""

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from miewid_core.figures import spelt
from miewid_core.files import ROOT, replacing
from miewid_core.paper import manifest
from miewid_core.paper.printed import FOLDER, printed_table
from miewid_core.paper.study import DEMO
from miewid_core.paper.verify import made_with
from miewid_core.runs import notebooks

TEMPLATE = Path(__file__).with_name("report.html")
# what notebooks regenerate, in the paper's order: where it stands in the paper, what that says, the
# printed table with the columns to show, and the name of ours
REGENERATED = FOLDER / "regenerated.csv"
# code, which is left alone; a formula on lines of its own; a formula within a line
FORMULA = re.compile(r"`+.+?`+|\$\$(.+?)\$\$|(?<![\\\w])\$(\S|\S[^$\n]*?\S)\$(?!\w)", re.DOTALL)
SAVED = re.compile(r'\bsave\w*\(\s*(?:\w+, )?"(\w+)"')  # the name that a cell saves something as
LINK = re.compile(r'(?<=\s)(href|src)="(?!\w+:|#|/)([^"#]+)(#[^"]*)?"')
STATES = ("made", "skipped", "failed", "not made yet")
PICTURES = {"image/png", "image/jpeg"}


@dataclasses.dataclass
class Section:
    """A notebook on the page; texts are HTML, files relative to the page.

    `paper`: its row of REGENERATED, empty for what is beyond the paper. `state`: one of STATES, and
    `why`. `command`: what makes it. `said`: its conclusion. `printed`: the paper's table. `page`:
    the executed notebook's, "" for none; `committed`: it is the committed one. `items`: what it
    shows. `files`: all that it saved. `entry`: in the manifest.
    """

    stem: str
    title: str
    paper: dict[str, str]
    state: str
    why: str
    command: str
    headline: str = ""
    said: str = ""
    printed: str = ""
    page: str = ""
    committed: bool = False
    items: list[dict[str, str]] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)
    entry: dict = dataclasses.field(default_factory=dict)
    manifest: str = ""

    @property
    def beside(self) -> dict[str, str] | None:
        """What stands beside the printed table."""
        return next((item for item in self.items if item["name"] == self.paper.get("here")), None)

    @property
    def main(self) -> list[dict[str, str]]:
        """The other items that the paper prints; where there are none, the first of all."""
        named = [item for item in self.items if item["name"].startswith(("table", "figure"))]
        return [item for item in named or self.items[:1] if item is not self.beside]

    @property
    def more(self) -> list[dict[str, str]]:
        """The items that are left."""
        return [item for item in self.items if item not in (self.beside, *self.main)]

    @property
    def made_with(self) -> str:
        """The commit, machine and versions."""
        return made_with({"": self.entry})


def write(folder: Path, catalog: str, words: dict[str, str]) -> Path:
    """Write index.html into a folder of figures, and executed notebooks as HTML; returns its path.

    `catalog`: the name of the data. `words`: parameters for the commands of notebooks that have not
    run here.
    """
    folder = Path(folder)
    executed = dict(_executed(folder))
    sections = [_section(path, executed.get(path.stem), folder, words) for path in _every()]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = template.from_string(TEMPLATE.read_text(encoding="utf-8"))
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    for stem, path in executed.items():
        title, body = _title(nbformat.read(path, 4)), _body(path, folder, executed)
        told = {"title": title, "body": body, "stem": stem, "colours": colours}
        _write(folder / "notebooks" / f"{stem}.html", page.render(told))
    drawn = catalog == DEMO
    told = {
        "title": f"The MiewID paper beside {'drawn animals' if drawn else Path(catalog).name}",
        "drawn": drawn,
        "sections": sections,
        "notices": _notices(folder),
        "counts": _counted([section.state for section in sections]),
    }
    _write(folder / "index.html", page.render(told))
    return folder / "index.html"


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@cache
def _regenerated() -> dict[str, dict[str, str]]:
    """The rows of REGENERATED by the number of the notebook."""
    rows = pd.read_csv(REGENERATED, dtype=str, keep_default_na=False)
    return rows.set_index("notebook").to_dict("index")


def _every() -> list[Path]:
    """The notebooks, those of the paper first."""
    return sorted(notebooks.chosen([]), key=lambda path: path.name[:2] not in _regenerated())


def _executed(folder: Path) -> Iterator[tuple[str, Path]]:
    """Each notebook executed into the folder; a committed one where its results lie there."""
    for path in _every():
        own = folder / "notebooks" / path.name
        entry = _saved(folder, path.name)[1]
        if own.exists():
            yield path.stem, own
        elif entry and not entry["parameters"] and _code(path) == entry["code"]:
            yield path.stem, path


def _code(path: Path) -> str:
    return json.loads(notebooks.about(path, {}))["code"]


def _saved(folder: Path, notebook: str) -> tuple[Path, dict]:
    """Where a notebook saved, with its entry in the manifest; the audit's figures lie beside."""
    for place in (folder, folder.parent / "paper"):
        if entry := manifest.read(place).get(notebook):
            return place, entry
    return folder, {}


def _section(path: Path, executed: Path | None, folder: Path, words: dict[str, str]) -> Section:
    place, entry = _saved(folder, path.name)
    paper = _regenerated().get(path.name[:2], {})
    title = _title(nbformat.read(path, 4))
    section = Section(path.stem, title, paper, "not made yet", "", _command(path.stem, words))
    if paper.get("table"):
        section.printed = _printed(paper)
    if executed is None:
        return section
    notebook = nbformat.read(executed, 4)
    ended = notebooks.ended(notebook, executed.stem, 0)
    section.page, section.committed = f"notebooks/{path.stem}.html", executed == path
    section.headline, section.said = ended.headline, _html(ended.conclusion, folder)
    section.why = ended.skipped or ended.failed
    section.state = "skipped" if ended.skipped else "failed" if ended.failed else "made"
    section.command = _command(path.stem, _parameters(notebook))
    where = Path(os.path.relpath(place, folder))
    saved = (name for name in entry.get("files", ()) if not name.endswith(".md"))  # a CSV again
    section.files = [(where / name).as_posix() for name in saved]
    section.items, section.entry = list(_items(notebook, section.files, folder)), entry
    section.manifest = (where / manifest.NAME).as_posix()
    return section


def _command(stem: str, parameters: dict[str, object]) -> str:
    """What makes a notebook's results."""
    given = [f"{name.upper()}={_as_word(value)}" for name, value in parameters.items()]
    return shlex.join(["make", "figures", f"ONLY={stem[:2]}", *given])


def _as_word(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(notebook: NotebookNode) -> dict[str, object]:
    """Those that an executed notebook was given."""
    return notebook.metadata.get("papermill", {}).get("parameters", {})


def _title(notebook: NotebookNode) -> str:
    return notebook.cells[0].source.partition("\n")[0].lstrip("# ")


def _printed(paper: dict[str, str]) -> str:
    """The paper's table as HTML."""
    table = printed_table(int(paper["table"]))[paper["columns"].split()]
    shown = table.map(lambda cell: f"{cell:,}" if pd.api.types.is_integer(cell) else cell)
    shown = shown.map(lambda cell: spelt(cell) if isinstance(cell, str) else cell)
    return shown.rename(columns=spelt).to_html(index=False, na_rep="", border=0)


def _items(notebook: NotebookNode, files: list[str], folder: Path) -> Iterator[dict[str, str]]:
    """What its cells save and show, in reading order: heading, caption, a picture or a table."""
    heading = caption = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^##+ (.+)", cell.source, re.MULTILINE)][-1]
            caption = _caption(cell.source)
        for name in SAVED.findall(cell.source) if cell.get("outputs") else ():
            suffixes = {Path(file).suffix: file for file in files if Path(file).stem == name}
            picture = suffixes.get(".png") or suffixes.get(".jpg", "")
            described = _described(cell)
            table = "" if picture and described else _table(cell, folder)
            if picture or table:
                item = {"name": name, "caption": _html(caption, folder), "table": table}
                item |= {"heading": heading, "picture": "" if table else picture}
                yield item | {"alt": next(iter(described), "") or spelt(f"{name}: {caption}")}
                heading = ""  # stands once


def _caption(source: str) -> str:
    """The last paragraph of the prose before a cell, as a sentence."""
    paragraphs = [text for text in source.split("\n\n") if text[:1] not in "#|"]
    return re.sub(r":$", ".", paragraphs[-1].strip()) if paragraphs else ""


def _described(cell: NotebookNode) -> list[str]:
    """A description of each picture that a cell shows, "" where it has none."""
    return [
        output.metadata.get(kind, {}).get("alt", "")
        for output in cell.outputs
        for kind in PICTURES & set(output.get("data", ()))
    ]


def _table(cell: NotebookNode, folder: Path) -> str:
    """The last table that a cell shows, as HTML; "" without one."""
    for output in reversed(cell.get("outputs", [])):
        data = output.get("data", {})
        if "<table" in data.get("text/html", ""):  # without its style and the rows' numbers
            return re.sub(r"(?s)<style.*?</style>|<th>\d*</th>", "", data["text/html"])
        if "\n|" in data.get("text/markdown", ""):
            return _html(data["text/markdown"], folder)
    return ""


def _html(text: str, folder: Path) -> str:
    """Markdown of a notebook as HTML for the page in a folder of figures."""
    return _relinked(markdown2html(with_mathml(text)), folder, "")


def with_mathml(text: str) -> str:
    """Markdown with its formulas, in LaTeX between dollars, as MathML, which browsers draw."""
    return FORMULA.sub(_as_mathml, text)


def _as_mathml(found: re.Match) -> str:
    block, inline = found.groups()
    if not (block or inline):
        return found[0]
    drawn = convert(block or inline, display="block" if block else "inline")
    return drawn.replace("*", "&#42;").replace("_", "&#95;")  # which Markdown would read


def _counted(states: list[str]) -> str:
    counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return f"Of {len(states)} notebooks: {', '.join(counts)}."


def _notices(folder: Path) -> tuple[str, str] | None:
    """How much notebook 01 noticed in the catalog, and the first of it as HTML."""
    path = folder / "catalog_notices.csv"
    found = pd.read_csv(path, dtype=str, keep_default_na=False) if path.exists() else []
    if not len(found):
        return None
    notices = "1 notice" if len(found) == 1 else f"{len(found):,} notices"
    return notices, found.head(50).to_html(index=False, border=0)


@cache
def _exporter() -> HTMLExporter:
    kinds = ["image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
    shown = Config(NbConvertBase={"display_data_priority": kinds})
    return HTMLExporter(template_name="basic", config=shown)


def _body(path: Path, folder: Path, executed: dict[str, Path]) -> str:
    """An executed notebook as HTML, without a page around it: it has neither scripts nor styles."""
    notebook, prose = nbformat.read(path, 4), ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose, cell.source = _caption(cell.source), with_mathml(cell.source)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in PICTURES & set(data):
                output.metadata.setdefault(kind, {}).setdefault("alt", prose)
            if "text/markdown" in data:
                data["text/markdown"] = with_mathml(data["text/markdown"])
    body, _ = _exporter().from_notebook_node(notebook)
    return _relinked(body, folder / "notebooks", "../index.html", executed)


def _relinked(html: str, place: Path, index: str, pages: Collection[str] = ()) -> str:
    """HTML of a notebook for a page that lies in another folder, `place`: its links are changed.

    Another notebook is one of `pages` beside, or a section of `index`.
    """

    def link(found: re.Match) -> str:
        kind, target, anchor = found.groups()
        there = os.path.relpath(ROOT / "notebooks" / target, place) + (anchor or "")
        if target.endswith(".ipynb"):
            stem = Path(target).stem
            there = f"{stem}.html" if stem in pages else f"{index}#{stem}"
        return f'{kind}="{there}"'

    return LINK.sub(link, html)
