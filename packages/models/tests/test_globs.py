import pytest

from poiesis_models.globs import has_wildcard, join_url, literal_directory, matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", ".a.txt", False),
        (".*", ".a.txt", True),
        ("?", "é", True),
        ("?", ".", False),
        ("/a/*", "/a/b/c", False),
        ("/a/*/c", "/a/b/c", True),
        ("[!a]b", "cb", True),
        ("[!a]b", "ab", False),
        ("[!a]b", ".b", False),
        ("a[]]", "a]", True),
        ("a[]-]", "a-", True),
        ("[a-c]", "b", True),
        ("[a-c]", "d", False),
        ("[[:digit:]]x", "5x", True),
        ("[[:digit:]]x", "ax", False),
        (r"\*", "*", True),
        (r"\*", "b", False),
        ("a[bc", "a[bc", True),
        ("a**b", "axyb", True),
        ("{a,b}", "a", False),
        ("{a,b}", "{a,b}", True),
        ("a.b", "axb", False),
        ("*", "a\nb", True),
    ],
)
def test_patterns_match_as_posix_says(pattern: str, path: str, expected: bool):
    assert matches(pattern, path) is expected


@pytest.mark.parametrize(
    ("pattern", "directory"),
    [("/a/b/*.txt", "/a/b"), ("/a/*/b", "/a"), ("/*", "/"), (r"/a\*b/?", "/a*b"), ("/a/b", "/a/b")],
)
def test_the_literal_directory_is_what_lies_above_the_first_wildcard(pattern: str, directory: str):
    assert literal_directory(pattern) == directory


@pytest.mark.parametrize(
    ("path", "expected"), [("/a", False), ("/a*", True), (r"/a\*", False), ("/a[b", True)]
)
def test_a_wildcard_is_an_unescaped_special_character(path: str, expected: bool):
    assert has_wildcard(path) is expected


def test_a_directory_url_is_joined_with_one_slash():
    assert join_url("s3://b/d", "/x/y") == join_url("s3://b/d/", "x/y") == "s3://b/d/x/y"
