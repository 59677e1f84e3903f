"""Shared volumes are found by URL, and nothing else is."""

import pytest

from poiesis_models.shared import (
    MalformedShared,
    NotAFileUrl,
    SharedVolume,
    file_path,
    from_json,
    to_json,
    volume_of,
)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///nfs/a", "/nfs/a"),
        ("FILE:///nfs/a", "/nfs/a"),
        ("file://localhost/nfs/a/", "/nfs/a"),
        ("file:///nfs/a%20b%3F%23%25", "/nfs/a b?#%"),
        ("/nfs/a%20b?#", "/nfs/a%20b?#"),
        ("/nfs/a/", "/nfs/a"),
        ("file:///nfs/\u00fc", "/nfs/\u00fc"),
    ],
)
def test_file_path_of_urls_and_bare_paths(url, path):
    assert file_path(url) == path


@pytest.mark.parametrize(
    "url",
    [
        "file://nas/nfs/a",
        "file:///nfs/a?x",
        "file:///nfs/a#x",
        "file:///nfs/../etc",
        "file:///nfs/%2e%2E/etc",
        "file:///nfs/./a",
        "/nfs//a",
        "//nfs/a",
        "/",
        "file:///",
        "file:a",
        "file:///nfs/%00",
        "/nfs/\0",
        "file:///%ff",
        "http:///nfs/a",
        "file://[",
    ],
)
def test_other_urls_are_rejected(url):
    with pytest.raises(NotAFileUrl):
        file_path(url)


def test_volume_contains_only_paths_below_its_prefix():
    volumes = (SharedVolume(prefix="/nfs/a"), SharedVolume(prefix="/nfs/ab", writable=True))
    assert volume_of("/nfs/a", volumes) == volume_of("/nfs/a/b/c", volumes) == volumes[0]
    assert volume_of("/nfs/ab/c", volumes) == volumes[1]
    assert volume_of("/nfs/abc", volumes) is None
    assert volume_of("/nfs", volumes) is None


def test_a_filer_reads_what_the_api_writes():
    volumes = (SharedVolume(prefix="/nfs/\u00fc b"), SharedVolume(prefix="/out", writable=True))
    assert from_json(to_json(volumes)) == volumes


@pytest.mark.parametrize("text", ["", "{", "1", "[1]", '[{"prefix":"/a"}]', '{"a":1}'])
def test_malformed_volume_list_is_rejected(text):
    with pytest.raises(MalformedShared):
        from_json(text)
