"""The HTML report: complete by itself, says what the JSON says, and takes no name of the model for markup."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

import tfqat
from tfqat.analysis import files
from tfqat.analysis.page import page_of

EVIL = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onclick='alert(1)",
    "<!--<script>",
    "{{report}} &lt; &amp;",
)


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, scripts, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.styles, self.rows, self.texts = [], [], [], [], []
        self.cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        tag = self.tags[-1][0] if self.tags else ""
        if tag == "script" and self.scripts[-1] == "":
            self.scripts[-1] = data
        elif tag == "style" and self.styles[-1] == "":
            self.styles[-1] = data
        else:
            self.texts.append(data)
            if self.cell:
                self.rows[-1][-1] += data

    @property
    def island(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def folder(qat, images, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    tfqat.analyze(qat, (images, labels), images=30, output=folder)
    return folder


@pytest.fixture(scope="module")
def document(folder):
    return json.loads((folder / "report.json").read_text())


def made(document):
    return page_of(document, json.dumps(document))


def changed(document, **blocks):
    """A copy with other values in its first block."""
    other = copy.deepcopy(document)
    other["blocks"][0] |= blocks
    return other


def test_it_needs_nothing_from_outside(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not {"src", "href", "srcset", "action", "data", "poster"} & {key for _, a in page.tags for key in a}
    assert not {"link", "base", "iframe", "object", "embed", "img", "form"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\(|@font-face", page.styles[0])
    assert not re.search(
        r"\bfetch\(|XMLHttpRequest|\bimport\b|WebSocket|innerHTML|insertAdjacentHTML|eval\(", page.scripts[1]
    )
    # The name space of SVG is no address that anybody opens.
    assert re.findall(r"https?://[^\s\"'<)]*", text) == ["http://www.w3.org/2000/svg"]


def test_only_its_own_script_may_run(folder):
    page = Page((folder / "report.html").read_text())
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert len(page.scripts) == 2
    assert not [a for _, a in page.tags for key in a if key.startswith("on")]


def test_it_says_what_the_json_says(folder, document):
    page = Page((folder / "report.html").read_text())
    assert page.island == document
    header, *rows = [row for row in page.rows if len(row) == 10]
    assert header[0] == "block"
    for row, block in zip(rows, document["blocks"], strict=True):
        assert row[0] == block["name"]
        assert row[1] == f"{block['alone_quantized']['output_error']:.2%}"
        points = 100 * (block["alone_float"]["accuracy"] - document["forms"]["quantized"]["accuracy"])
        assert float(row[4]) == pytest.approx(points, abs=0.006)
        assert float(row[5]) == pytest.approx(block["sqnr_db"], abs=0.06)
        assert row[8:] == [block["kind"], str(block["place"])]
    forms = {row[0]: row for row in page.rows if len(row) == 4}
    assert forms["weights only"][3] == f"{document['forms']['weights_only']['output_error']:.2%}"
    shown = " ".join(page.texts)
    for said in ("small for tensorrt", "30 samples", document["date"], *document["versions"].values()):
        assert said in shown


def test_it_suits_phones_and_the_dark(folder):
    page = Page((folder / "report.html").read_text())
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in page.styles[0]
    # Both looks name the same colours.
    light, dark = re.findall(r":root \{(.*?)\}", page.styles[0], re.S)
    assert set(re.findall(r"--[\w]+", light)) == set(re.findall(r"--[\w]+", dark))
    assert set(re.findall(r"var\((--\w+)\)", page.styles[0])) <= set(re.findall(r"--[\w]+", light))


@pytest.mark.parametrize("name", EVIL)
def test_a_name_is_no_markup(name, document):
    other = changed(document, name=name, kind=name)
    other["model"] = name
    other["notes"] = [name]
    other["blocks"][0]["tensors"][0]["name"] = name
    text = made(other)
    page, plain = Page(text), Page(made(document))
    assert page.island == other
    tags = [(tag, set(attributes)) for tag, attributes in page.tags]
    assert [t for t in tags if t != ("p", {"class"})] == [
        (tag, set(a)) for tag, a in plain.tags if (tag, set(a)) != ("p", {"class"})
    ]
    assert page.scripts[1] == plain.scripts[1]
    row = next(row for row in page.rows if len(row) == 10 and row[0] != "block")
    assert (row[0], row[8]) == (name, name)
    assert "<!--" not in text


def test_what_was_not_measured_is_named(qat, images, tmp_path):
    found = tfqat.analyze(qat, images, images=4, budget=1e-9, output=tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    note = next(text for text in page.texts if text.startswith("Not measured within 1e-09 s: 6 of 6 blocks ("))
    assert all(block.name in note for block in found.blocks)
    for row in [row for row in page.rows if len(row) == 10][1:]:
        assert row[1:5] == ["not measured"] * 4
        assert float(row[5]) > 0


def test_without_labels_it_says_so(qat, images, tmp_path):
    tfqat.analyze(qat, images, images=8, output=tmp_path)
    page = Page((tmp_path / "report.html").read_text())
    assert [text.split(":")[0] for text in page.texts if text.startswith("No accuracies")] == ["No accuracies"]
    cells = [(row[2], row[4]) for row in page.rows if len(row) == 10][1:]
    assert cells == [("", "")] * 6


def test_both_files_or_none(qat, images, tmp_path, monkeypatch):
    def fail(path, text):
        if path.name == files.HTML:
            raise OSError("disk full")
        path.write_text(text)

    (tmp_path / "report.json").write_text("old")
    monkeypatch.setattr(files, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        tfqat.analyze(qat, images, images=4, output=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"
