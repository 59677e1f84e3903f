from pathlib import Path
from typing import Any

import pytest

from poiesis_models.worklist import FileType, InputItem
from poiesis_tif.http_input import HttpInput
from poiesis_tif.plan import plan
from poiesis_tif.s3_input import Kind, S3Input, relative_path
from poiesis_tif.steps import LiteralInput, Step, Target
from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import S3Url

TARGET = Target(local=Path("/task/root/in/x"), path="/in/x", number=0)


def item(url: str | None, kind: FileType | None = None, content_file: str | None = None) -> InputItem:
    return InputItem(path="/in/x", local="/task/root/in/x", type=kind, url=url, content_file=content_file)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (item("s3://b/k", "FILE"), S3Input(TARGET, S3Url("b", "k"), Kind.FILE)),
        (item("s3://b/k", "DIRECTORY"), S3Input(TARGET, S3Url("b", "k"), Kind.DIRECTORY)),
        (item("s3://b/k"), S3Input(TARGET, S3Url("b", "k"), Kind.UNKNOWN)),
        (item("s3://b/k/"), S3Input(TARGET, S3Url("b", "k/"), Kind.DIRECTORY)),
        (item("s3://b/k/", "FILE"), S3Input(TARGET, S3Url("b", "k/"), Kind.DIRECTORY)),
        (item("s3://b"), S3Input(TARGET, S3Url("b"), Kind.DIRECTORY)),
        (item("https://h/x?y", "FILE"), HttpInput(TARGET, "https://h/x?y")),
        (item("HTTP://h/x"), HttpInput(TARGET, "HTTP://h/x")),
        (item(None, "FILE", "content-0"), LiteralInput(TARGET, "content-0")),
        (item("ftp://ignored", None, "content-0"), LiteralInput(TARGET, "content-0")),
    ],
)
def test_an_input_is_one_step(given: InputItem, expected: Step):
    assert plan([given]) == [expected]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            item("https://u:secret@h/x?y=secret", "DIRECTORY"),
            "input /in/x cannot be a DIRECTORY: HTTP cannot list directories (https://h/x)",
        ),
        (
            item("ftp://u:secret@h/x"),
            "input /in/x: unsupported URL scheme 'ftp' in 'ftp://h/x' (supported: s3, http, https)",
        ),
        (item("/bare"), "no URL scheme in '/bare'"),
        (item(None), "no URL scheme"),
        (item("s3:///k"), "does not name an S3 bucket"),
    ],
)
def test_what_cannot_be_staged_is_named(given: InputItem, words: str):
    with pytest.raises(Permanent) as failure:
        plan([given])
    assert words in str(failure.value)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("key", "prefix", "expected"),
    [
        ("d/a", "d/", "a"),
        ("d/a/b", "d/", "a/b"),
        ("d/", "d/", ""),
        ("d/a/", "d/", "a/"),
        ("x", "", "x"),
        ("d/...", "d/", "..."),
    ],
)
def test_a_key_has_a_place_below_its_directory(key: str, prefix: str, expected: str):
    assert relative_path(key, prefix) == expected


@pytest.mark.parametrize(
    "rest", ["../x", "a/../../x", "a//b", "/etc/passwd", "./x", "a/..", "..", "a/../", "//", "x\0y"]
)
def test_a_key_outside_the_directory_is_refused(rest: str):
    with pytest.raises(Permanent, match="cannot stage key"):
        relative_path("d/" + rest, "d/")


def test_literal_content_cannot_be_streamed():
    unused: Any = None
    with pytest.raises(Permanent, match="input /in/x has no URL to stream from"):
        LiteralInput(TARGET, "content-0").read(unused, unused, unused)
