import pytest

from poiesis_models.urls import NotAnS3Url, names_s3_directory, redacted, scheme, shown, split_s3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b/k", ("b", "k")),
        ("S3://b/k", ("b", "k")),
        ("s3://b/a b?x#y%20é", ("b", "a b?x#y%20é")),
        ("s3://b/a@b:c", ("b", "a@b:c")),
        ("s3://b//k", ("b", "/k")),
        ("s3://b/", ("b", "")),
        ("s3://b", ("b", "")),
        ("s3://b/" + "k" * 1024, ("b", "k" * 1024)),
        ("s3://b/" + "%C3%A9" * 512, ("b", "%C3%A9" * 512)),
    ],
)
def test_s3_url_has_bucket_and_literal_key(url: str, expected: tuple[str, str]):
    assert split_s3(url) == expected


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:/b/k", "is not an S3 URL (s3://bucket/key)"),
        ("s3:///k", "does not name an S3 bucket"),
        ("s3://b b/k", "does not name an S3 bucket"),
        ("s3://b?x/k", "does not name an S3 bucket"),
        ("s3://id:secret@s3.example.org:9000/bucket/r", "//s3.example.org:9000/bucket/r contains a user"),
        ("s3://id:sec/ret@s3.example.org/bucket/r", "//s3.example.org/bucket/r contains a user"),
        ("s3://id:secret?@b/k", "s3://b/k contains a user, host or port; write s3://bucket/key"),
        ("s3://s3.example.org:9000/bucket/r", "contains a user, host or port"),
        ("s3://b:secret/k?secret", "contains a user"),
        ("s3://b/" + "k" * 1025, "an S3 key has at most 1024 bytes"),
        ("s3://b/" + "é" * 513, "an S3 key has at most 1024 bytes"),
        ("s3://b/" + "%C3%A9" * 513, "an S3 key has at most 1024 bytes"),
        ("s3://b/\ud800", "an S3 key must be UTF-8"),
    ],
)
def test_invalid_s3_url_error_has_no_secrets(url: str, words: str):
    with pytest.raises(NotAnS3Url) as refusal:
        split_s3(url)
    assert words in str(refusal.value)
    if "@" in url:
        assert "sec" not in str(refusal.value).replace("s3://bucket/key", "")
    str(refusal.value).encode()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b", True),
        ("s3://b/", True),
        ("S3://b/d/", True),
        ("s3://b/k", False),
        ("s3://", False),
        ("https://h/d/", False),
        ("/nfs/d/", False),
    ],
)
def test_a_bucket_and_a_slash_name_a_directory(url: str, expected: bool):
    assert names_s3_directory(url) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p?X-Amz-Signature=abc", "https://h/p"),
        ("https://user:secret@h:1/p#frag?x", "https://h:1/p"),
        ("https://h?token=a/b@c", "https://h"),
        ("https://h/a@b", "https://h/a@b"),
        ("s3://b/what?#", "s3://b/what?#"),
        ("s3://id:secret@b/k", "s3://b/k"),
        ("/bare/path?x", "/bare/path?x"),
        ("s3://b/\udcff", "s3://b/\ufffd"),
        ("", ""),
    ],
)
def test_shown_url_has_no_user_or_query(url: str, expected: str):
    assert shown(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ftp://u:p@h/x", "ftp://h/x"),
        ("ftp://u:p/a?b#c@h/x?y", "ftp://h/x"),
        ("x y", "x y"),
        ("/a@b", "/a@b"),
    ],
)
def test_redacted_url_has_no_user_info(url: str, expected: str):
    assert redacted(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [("HTTP://h", "http"), ("file:///a", "file"), ("/a/b", ""), ("a b:c", ""), ("ftp:x", "ftp")],
)
def test_scheme_precedes_the_colon(url: str, expected: str):
    assert scheme(url) == expected
