"""Configuration of the documentation site that `make docs` builds; see docs/development/documentation.md."""

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
highlight_language = "text"
smartquotes = False  # `--` and quotes in examples stay as they are

html_theme = "furo"
html_title = "Poiesis"
html_static_path = ["_static"]
html_css_files = ["site.css"]
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


def _format_help(_app: Any, _context: Any, lines: list[str]) -> None:
    lines[:] = docs.with_literal_examples(lines)


def setup(app: Any) -> None:
    """Connect to the events of reading a page, and of reading the help of a command."""
    app.connect("source-read", _link_to_repository)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _format_help)
