"""The command has the options and subcommands that the documentation shows."""

import re
from pathlib import Path

import click
import pytest

from poiesis_cli.app import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands():
    """Yield the words of every `poiesis` in a console block, without the argv of the container."""
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            text = block.replace("\\\n", " ")
            for found in re.findall(r"(?:^\$ |[(|;] *|xargs |^ +)poiesis +([^|;)\n]*)", text, re.MULTILINE):
                words = re.sub(r"'[^']*'|\"[^\"]*\"", "X", found.split(" -- ")[0]).split()
                if words:
                    yield pytest.param(words, id=f"{page.stem}-{' '.join(words)[:60]}")


def options(command: click.Command) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"-h", "--help"}


@pytest.mark.parametrize("words", list(commands()))
def test_documented_options_exist(words):
    subcommand = next((word for word in words if word in cli.commands), None)
    known = options(cli) | (options(cli.commands[subcommand]) if subcommand else set())
    named = {word.split("=")[0] for word in words if re.match(r"-[-a-z]", word)}
    assert subcommand or named, words
    assert named <= known
