"""Configuration of the documentation site; `make docs` builds it, docs/development/documentation.md explains it."""

from pathlib import Path
from typing import Any

from poiesis_tools import docs

project = "Poiesis"
author = "The Poiesis authors"
copyright = author  # noqa: A001 (Sphinx's name)
release = version = (docs.ROOT / "VERSION").read_text(encoding="utf-8").strip()

extensions = ["myst_parser", "sphinx_click"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
nitpicky = True

html_theme = "furo"
html_title = "Poiesis"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": f"{docs.REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def _link_to_repository(app: Any, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    source[0] = docs.with_repository_links(source[0], page)


def setup(app: Any) -> None:
    """Connect to the event by which Sphinx has read a page."""
    app.connect("source-read", _link_to_repository)
