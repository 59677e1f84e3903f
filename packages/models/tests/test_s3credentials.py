"""Which of several credentials an S3 URL gets, as tables."""

import json

import pytest

from poiesis_models.s3credentials import (
    Choice,
    MalformedCredentials,
    S3Credentials,
    from_json,
    to_json,
)


def entry(name: str, *urls: str) -> S3Credentials:
    return S3Credentials(name=name, urls=urls)


ENTRIES = [
    entry("bucket", "s3://lab"),
    entry("team", "s3://lab/team/", "s3://other/team"),
    entry("deep", "s3://lab/team/raw data/?x#y"),
    entry("again", "s3://lab/team"),
]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://lab", "bucket"),
        ("s3://lab/", "bucket"),
        ("s3://lab/a", "bucket"),
        ("S3://lab/a", "bucket"),
        ("s3://lab/teams/a", "bucket"),
        ("s3://lab/Team/a", "bucket"),
        ("s3://lab//team/a", "bucket"),
        ("s3://lab/team", "team"),  # of two that are as long the first
        ("s3://lab/team/", "team"),
        ("s3://lab/team/a", "team"),
        ("s3://lab/team//a", "team"),
        ("s3://lab/team/raw data", "team"),
        ("s3://lab/team/raw data/?x#y", "deep"),
        ("s3://lab/team/raw data/?x#y/a", "deep"),
        ("s3://lab/team/raw data/?x#yz", "team"),
        ("s3://lab/team/raw%20data/?x#y", "team"),  # keys are literal
        ("s3://other/team/a", "team"),
        ("s3://other/a", None),
        ("s3://lab2/team/a", None),
        ("s3://la", None),
        ("s3:/lab/team", None),
        ("https://lab/team/a", None),
        ("https://s3://lab/team", None),
        ("/lab/team", None),
        ("", None),
    ],
)
def test_the_longest_url_decides_by_whole_segments(url: str, name: str | None):
    found = Choice(ENTRIES).closest(url)
    assert (found and found.name) == name


@pytest.mark.parametrize(
    ("url", "directory", "names"),
    [
        ("s3://lab/team/raw data/?x#y/a", True, ["deep"]),
        ("s3://lab/team/a", True, ["team"]),
        ("s3://lab/team/raw data/", True, ["team", "deep"]),
        ("s3://lab/team", True, ["team", "deep"]),
        ("s3://lab", True, ["bucket", "team", "deep"]),
        ("s3://lab", False, ["bucket"]),
        ("s3://lab/te", True, ["bucket"]),
        ("s3://other/", True, ["team"]),
        ("s3://other/", False, []),
        ("http://lab/team", True, []),
    ],
)
def test_directory_needs_credentials_of_objects_in_it(url: str, directory: bool, names: list[str]):
    found = {one.name for one in Choice(ENTRIES).needed(url, directory=directory)}
    assert found == set(names)


def test_credentials_survive_json_round_trip():
    entries = (
        entry("a", "s3://a"),
        S3Credentials(
            name="b",
            urls=("s3://b/x", "s3://c"),
            secret="keys",
            directory="/poiesis/credentials/b",
            requester_pays=False,
            endpoint="https://s3.example",
            region="eu-1",
            addressing_style="path",
            ca_file="/poiesis/credentials/b/ca.crt",
        ),
        S3Credentials(name="c", urls=("s3://d",), anonymous=True),
    )
    text = to_json(entries)
    assert from_json(text) == entries
    assert json.loads(text)[0] == {"name": "a", "urls": ["s3://a"], "anonymous": False}


@pytest.mark.parametrize(
    "text", ["", "{}x", "[1]", '[{"name": "a"}]', '[{"name": "a", "urls": [], "x": 1}]', "7"]
)
def test_malformed_credentials_are_rejected(text: str):
    with pytest.raises(MalformedCredentials):
        from_json(text)
