"""The page: complete in itself, escaped, light, and every link in it leads somewhere."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fake_comparison import fake_comparison
from report.page import MAX_WIDTH, SMALL, code, compose_page, shrink
from report.sections import Findings, Picture

NAMES = ("baseline", "augmented", "control_duplicate")
VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Tags with their attributes, text by id of the enclosing section, and whether all tags are closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[tuple[str, str]] = []
        self.text: dict[str, str] = {}
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id", "")))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for _, key in self.open:
            if key:
                self.text[key] = self.text.get(key, "") + data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def png(path: Path, width: int = 300, height: int = 200, noisy: bool = False) -> bytes:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    if noisy:
        pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.fixture
def findings(tmp_path) -> Findings:
    pictures = [
        Picture("differences.png", "every pair of arms", "differences"),
        Picture("roc_pr.png", "the curves", "arms"),
        Picture("real_vs_synthetic_comparison.png", "positives", "images"),
    ]
    for picture in pictures:
        png(tmp_path / picture.file)
    return Findings(
        comparison=fake_comparison(NAMES),
        flags=["<script>alert(1)<script> & steps"],
        missing=[("gradcam.png: no models", "`python src/train_classifier.py` trains one")],
        pictures=pictures,
        commands=[
            ("Train the arm baseline", "python src/train_classifier.py --epochs 3"),
            ("This report", "python x"),
        ],
        files=[("comparison.json", "every number")],
    )


def test_the_page_begins_with_the_verdict_then_the_warnings_then_the_contents(findings, tmp_path):
    content = compose_page(findings, tmp_path)
    page = Page(content)
    assert page.open == []
    verdict = " ".join(page.text["verdict"].split())
    assert verdict.startswith("VerdictCompared with control_duplicate, augmented shows no evidence of a diff")
    assert "Compared with control_duplicate, augmented" in verdict
    body = content[content.index("<body>") :]
    places = [body.index(mark) for mark in ('id="verdict"', 'id="warnings"', "<nav", 'id="test-set"', "<table")]
    assert places == sorted(places)
    assert "Back to the verdict" not in page.text["verdict"]
    del findings.flags[:]
    assert 'id="warnings"' not in compose_page(findings, tmp_path)


def test_it_needs_nothing_else_and_runs_nothing(findings, tmp_path):
    content = compose_page(findings, tmp_path)
    page = Page(content)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert "http" not in re.sub(r"base64,[\w+/=]*", "", content) and "@import" not in content
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(not key.startswith("on") for _, attrs in page.tags for key in attrs)
    (viewport,) = [meta for meta in page.all("meta") if meta.get("name") == "viewport"]
    assert "width=device-width" in viewport["content"] and "@media print" in content
    assert page.all("html")[0]["lang"] == "en"


def test_every_link_leads_to_its_place_and_every_figure_and_command_is_reached(findings, tmp_path):
    page = Page(compose_page(findings, tmp_path))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in page.all("a")]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    for picture in findings.pictures:
        assert f"#figure-{Path(picture.file).stem}" in links
    assert {"#commands", "#differences", "#subgroups", "#missing"} <= set(links)
    for _, command in findings.commands:
        assert command in page.text["commands"]
    assert [figure["alt"] for figure in page.all("img")] == ["the curves", "every pair of arms", "positives"]


def test_pictures_stand_in_their_sections_as_they_are(findings, tmp_path):
    content = compose_page(findings, tmp_path)
    for picture in findings.pictures:
        section = content[content.index(f'<section id="{picture.section}"') :]
        section = section[: section.index("</section>")]
        (encoded,) = re.findall(r"data:image/png;base64,([\w+/=]*)", section)
        assert base64.b64decode(encoded) == (tmp_path / picture.file).read_bytes()
        assert 'width="300" height="200"' in section


def test_a_section_of_pictures_alone_is_there(findings, tmp_path):
    assert findings.quality is None and "Synthetic images beside real ones" in compose_page(findings, tmp_path)


def test_words_from_files_are_escaped_and_commands_in_them_marked(findings, tmp_path):
    content = compose_page(findings, tmp_path)
    assert "<script>" not in content and "&lt;script&gt;alert(1)&lt;script&gt; &amp; steps" in content
    assert "<code>python src/train_classifier.py</code> trains one" in content
    assert code("a `b <c>` d") == "a <code>b &lt;c&gt;</code> d" and code("a ` <b>") == "a ` &lt;b&gt;"


def test_no_folder_of_this_machine_comes_in(findings, tmp_path):
    findings.flags[:] = [f"{tmp_path}/models/x.pth is damaged"]
    assert str(tmp_path) not in compose_page(findings, tmp_path) and "x.pth is damaged" in (
        compose_page(findings, tmp_path)
    )


def test_heavy_pictures_get_lighter_and_light_ones_stay(tmp_path):
    light = png(tmp_path / "light.png")
    assert shrink(light) == (light, "png", 300, 200)
    heavy = png(tmp_path / "heavy.png", 2 * MAX_WIDTH, 600, noisy=True)
    assert len(heavy) > SMALL
    content, kind, width, height = shrink(heavy)
    assert (width, height) == (MAX_WIDTH, 300) and len(content) < len(heavy) / 4
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (width, height) and image.format.lower() == kind
    wide = png(tmp_path / "wide.png", 2 * MAX_WIDTH, 600)  # no byte too many, but too many pixels
    content, kind, width, _ = shrink(wide)
    assert (kind, width) == ("png", MAX_WIDTH)


def test_what_is_for_reviewers_is_folded_and_links_to_the_files_beside(findings, tmp_path):
    cards = [("model_card.md", "models & <results>; 9 fields left to the author")]
    picture = Picture("patient_flow.png", "the flow", "reviewers")
    png(tmp_path / picture.file)
    content = compose_page(replace(findings, cards=cards, pictures=[*findings.pictures, picture]), tmp_path)
    page = Page(content)
    assert page.open == []
    section = content[content.index('<section id="reviewers"') :]
    section = section[: section.index("</section>")]
    folded = section[section.index("<details>") : section.index("</details>")]  # closed until it is clicked
    assert '<a href="model_card.md">model_card.md</a>: models &amp; &lt;results&gt;' in folded
    assert 'id="figure-patient_flow"' in folded
    body = content[content.index("<body>") :]
    assert body.index("<details>") > body.index("<nav")
