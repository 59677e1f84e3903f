"""Configuration of the documentation site that `make docs` builds; see docs/development/documentation.md."""

from pathlib import Path
from typing import Any

from poiesis_api import openapi
from poiesis_api.config import ServiceInfo
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


_SCHEMAS = (
    *("tesTask", "tesExecutor", "tesInput", "tesOutput", "tesFileType", "tesResources", "tesState"),
    *("tesTaskLog", "tesExecutorLog", "tesOutputFileLog"),
    *("tesServiceInfo", "tesServiceType", "tesServiceOrganization"),
)
_GENERATED = ["reference/cli-options", "reference/task-documents"]  # from code that Sphinx does not watch


def _prepare(app: Any, docname: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    source[0] = docs.with_repository_links(source[0], page)
    if docname == "reference/task-documents":
        schemas = openapi.document(ServiceInfo())["components"]["schemas"]
        source[0] += "\n\n" + docs.schema_tables({name: schemas[name] for name in _SCHEMAS})


def _outdated(*_: Any) -> list[str]:
    return _GENERATED


def _format_help(_app: Any, _context: Any, lines: list[str]) -> None:
    lines[:] = docs.with_literal_examples(lines)


def setup(app: Any) -> None:
    """Connect to the events of reading a page, and of reading the help of a command."""
    app.connect("env-get-outdated", _outdated)
    app.connect("source-read", _prepare)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _format_help)
