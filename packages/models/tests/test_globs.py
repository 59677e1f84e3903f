import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from poiesis_models.globs import (
    Reading,
    has_wildcard,
    join_url,
    literal_directory,
    matches,
    needless_escape,
    problem,
    reading,
    segment_regex,
    unescaped,
)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.txt", "a.txt", True),
        ("*.txt", ".a.txt", False),
        (".*", ".a.txt", True),
        (r"\.*", ".a", True),
        ("[.]a", ".a", False),
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
        ("[a-c-e]", "-", True),
        ("[a-c-e]", "d", False),
        ("[[:digit:]]x", "5x", True),
        ("[[:digit:]]x", "ax", False),
        ("[[:digit:]a]", "a", True),
        ("[![:digit:]]", "a", True),
        ("[![:digit:]]", "5", False),
        (r"\*", "*", True),
        (r"\*", "b", False),
        (r"\[1\]*", "[1]x", True),
        (r"\[1\]*", "1x", False),
        (r"[\]a]", "]", True),
        (r"[\]a]", "\\", False),
        (r"[a\-c]", "b", False),
        (r"[a\-c]", "-", True),
        (r"[\\]", "\\", True),
        ("a[bc", "a[bc", True),
        ("a[b*", "a[bc", True),
        ("a[b/c]d", "a[b/c]d", True),
        ("[]", "[]", True),
        ("[!]", "[!]", True),
        ("[^a]", "^", True),
        ("[^a]", "b", False),
        ("[a-c&&b]", "&", True),
        ("[z-a]", "z", False),
        ("[![:nope:]]", "a", True),
        ("a**b", "axyb", True),
        ("*a*a", "aa", True),
        ("*a*a", "a", False),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("a*b*c", "abxbc", True),
        ("a*", "a", True),
        ("*a", "ba", True),
        ("{a,b}", "a", False),
        ("{a,b}", "{a,b}", True),
        ("a.b", "axb", False),
        ("*", "a\nb", True),
    ],
)
def test_patterns_match_as_in_posix(pattern: str, path: str, expected: bool):
    assert matches(pattern, path) is expected


def fits(pattern: str, name: str) -> bool:
    """A slow reference for stars, `?`, escapes and plain characters; exponential, so short names only."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return fits(pattern[1:], name) or (name != "" and fits(pattern, name[1:]))
    if name == "":
        return False
    if pattern[0] == "\\":
        return pattern[1] == name[0] and fits(pattern[2:], name[1:])
    if pattern[0] == "[":
        body, _, rest = pattern[1:].partition("]")
        inside = name[0] in body.removeprefix("!")
        return inside != body.startswith("!") and fits(rest, name[1:])
    return pattern[0] in {"?", name[0]} and fits(pattern[1:], name[1:])


_PIECE = st.sampled_from(["a", "b", "x.", "*", "?", r"\*", r"\a", "[ab]", "[!a]", "é"])


@given(st.lists(_PIECE, max_size=8).map("".join), st.text("abx.*é\n", max_size=8))
@example("*ab*b", "aabb")
@example("*a*b*?", "abab")
def test_matches_agree_with_slow_reference(pattern: str, name: str):
    hidden = name.startswith(".") and not pattern.startswith((".", r"\."))
    assert (segment_regex(pattern).fullmatch(name) is not None) == (fits(pattern, name) and not hidden)


@given(st.text("ab[]!-^\\:*?.", max_size=12), st.text("ab[]!-^\\:*?.", max_size=6))
def test_escaped_name_matches_itself(pattern: str, name: str):
    segment_regex(pattern).fullmatch(name)
    problem(pattern)
    escaped = "".join(f"\\{char}" for char in name)
    assert unescaped(escaped) == name
    assert reading(escaped) is Reading.LITERAL
    assert matches(escaped, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 100 + "b", "a" * 200),
        ("*" * 200 + "b", "a" * 200),
        ("*?" * 100 + "b", "a" * 200),
        ("*[ab]" * 100 + "c", "ab" * 100),
        ("*ab" * 60 + "c", "ab" * 120),
        ("[" * 100_000, "a"),
        ("[[:" * 100_000, "a"),
        ("[\\]" * 100_000, "a"),
    ],
)
def test_no_pattern_is_slow(pattern: str, name: str):
    start = time.process_time()
    has_wildcard(pattern)
    problem(pattern)
    assert segment_regex(pattern[:1000]).fullmatch(name) is None
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b", Reading.LITERAL),
        (r"/a/sample\[1\].txt", Reading.LITERAL),
        (r"/a\*/b\?", Reading.LITERAL),
        ("/a[b", Reading.LITERAL),
        ("/a[b/c]d", Reading.LITERAL),
        ("/a]", Reading.LITERAL),
        ("/{a,b}", Reading.LITERAL),
        ("/a/sample[1].txt", Reading.EITHER),
        ("/run[1]/x.txt", Reading.EITHER),
        ("/a/sample[1]*.txt", Reading.PATTERN),
        ("/a*", Reading.PATTERN),
        ("/a/?", Reading.PATTERN),
        (r"/a\\*", Reading.PATTERN),
    ],
)
def test_path_has_one_interpretation(path: str, expected: Reading):
    assert reading(path) is expected
    assert has_wildcard(path) is (expected is not Reading.LITERAL)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (r"/out/sample\[1\].txt", "/out/sample[1].txt"),
        (r"/run\[1\]/x", "/run[1]/x"),
        (r"/a\\b", r"/a\b"),
        (r"/a\b", "/ab"),
        ("/a/b", "/a/b"),
    ],
)
def test_backslash_escapes_next_character(path: str, name: str):
    assert unescaped(path) == name


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/out/[z-a]", "the range 'z-a' ends before it begins"),
        ("/out/x[a-z9-0].txt", "the range '9-0' ends before it begins"),
        ("/out/[!b-a]/x", "the range 'b-a' ends before it begins"),
        ("/out/[[:letter:]]", "'[:letter:]' is not a character class (supported: [:alpha:], "),
        ("/out/[[.a.]]", "'[.a.]' is not a character class"),
        ("/out/[[=a=]]", "'[=a=]' is not a character class"),
        ("/out/a\\", "a backslash must be followed by the character that it escapes"),
        ("/out\\/a", "a backslash must be followed by the character that it escapes"),
    ],
)
def test_unsupported_pattern_has_a_reason(path: str, words: str):
    assert (problem(path) or "").startswith(words)


@pytest.mark.parametrize(
    "path", ["/a", "/[a-z]", "/[--0]", "/[a-]", "/[!-a]", "/[]-a]", "/[[:alpha:]_]", r"/a\[z-a\]", "/[z-a"]
)
def test_other_patterns_are_supported(path: str):
    assert problem(path) is None


@pytest.mark.parametrize(
    ("path", "escape"),
    [("/a/b", None), (r"/a\[1\]\*\?\\", None), (r"/a\b\c", r"\b"), (r"/a\ b", r"\ "), (r"/a\\b", None)],
)
def test_unnecessary_escape_is_detected(path: str, escape: str | None):
    assert needless_escape(path) == escape


@pytest.mark.parametrize(
    ("pattern", "directory"),
    [("/a/b/*.txt", "/a/b"), ("/a/*/b", "/a"), ("/*", "/"), (r"/a\*b/?", "/a*b"), ("/a/b", "/a/b")],
)
def test_literal_directory_is_above_first_wildcard(pattern: str, directory: str):
    assert literal_directory(pattern) == directory


def test_a_directory_url_is_joined_with_one_slash():
    assert join_url("s3://b/d", "/x/y") == join_url("s3://b/d/", "x/y") == "s3://b/d/x/y"
