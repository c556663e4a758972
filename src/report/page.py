"""The report as one page that needs nothing else: pictures embedded, no script, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape
from PIL import Image

from common import paths
from report.blocks import Section
from report.sections import Findings, Picture, sections

TITLE = "Does the synthetic data help?"
MAX_WIDTH = 1280  # pixels; twice the width of the text, for fine screens
PICTURES_FIRST = ("differences", "heat-maps", "reviewers")  # sections in which the picture says it best
SMALL = 250_000  # bytes; a picture below it is embedded as it is


def compose_page(findings: Findings, folder: str | Path) -> str:
    """Write the content of ``report.html``; the pictures are read from ``folder``."""
    return render_page(_title(findings), sections(findings), findings.pictures, folder)


def render_page(title: str, parts: Sequence[Section], pictures: Sequence[Picture], folder: str | Path) -> str:
    """Write a page of sections, of which one is the verdict; the pictures are read from ``folder``."""
    first = [part.key for part in parts if part.key in ("verdict", "warnings")]
    return load_template(paths.REPORT_TEMPLATE).render(
        title=title,
        sections=parts,
        contents_after=first[-1],
        pictures_first=PICTURES_FIRST,
        pictures=[_embedded(Path(folder) / picture.file, picture) for picture in pictures],
    )


def _title(findings: Findings) -> str:
    external = findings.comparison.get("external")
    return f"{TITLE.removesuffix('?')} on {external['test']['name']}?" if external else TITLE


def load_template(name: str) -> Template:
    """Load a template of a page; all text in it is escaped, and a name that is not given is an error."""
    loader = FileSystemLoader(paths.TEMPLATES_DIR)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["code"] = code
    return environment.get_template(name)


def code(text: str) -> Markup:
    """Escape ``text``, mark what stands between backticks as code, keep numbers and % together."""
    parts = text.replace(" %", "\N{NO-BREAK SPACE}%").split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner is no mark
        return escape("`".join(parts))
    mark = Markup("<code>{}</code>")
    return Markup("").join(mark.format(part) if i % 2 else escape(part) for i, part in enumerate(parts))


def _embedded(path: Path, picture: Picture) -> dict[str, Any]:
    """Return what the template needs of one picture; its pixels as a data URI."""
    content, kind, width, height = shrink(path.read_bytes())
    name = path.name.split(".")[0]  # without what marks a picture of real patients
    return {
        "id": f"figure-{name}",
        "file": picture.file,
        "short": name.replace("_", " "),
        "what": picture.what,
        "section": picture.section,
        "data": data_uri(content, kind),
        "width": width,
        "height": height,
    }


def data_uri(content: bytes, kind: str) -> Markup:
    """Return a picture as text in the page; ``kind``: "png" or "jpeg"."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}")


def shrink(png: bytes) -> tuple[bytes, str, int, int]:
    """Return (picture at most ``MAX_WIDTH`` wide, "png" or "jpeg", width, height).

    A heavy picture, as those of X-rays are, gets the lighter of both formats. The file beside the page keeps
    every pixel.
    """
    with Image.open(io.BytesIO(png)) as file:
        width, height = file.size
        if width <= MAX_WIDTH and len(png) <= SMALL:
            return png, "png", width, height
        image = file.convert("RGB")
    if width > MAX_WIDTH:
        image = image.resize((MAX_WIDTH, round(height * MAX_WIDTH / width)), Image.Resampling.LANCZOS)
    made = []
    formats: tuple[tuple[str, dict[str, int]], ...] = (("png", {}), ("jpeg", {"quality": 88}))
    for kind, options in formats:
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        made.append((buffer.getvalue(), kind))
    content, kind = min(made, key=lambda item: len(item[0]))
    return content, kind, *image.size
