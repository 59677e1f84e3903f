import pytest

from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import S3Url, parse_s3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://b/k", S3Url("b", "k")),
        ("S3://b/k", S3Url("b", "k")),
        ("s3://b/a b?x#y%20é", S3Url("b", "a b?x#y%20é")),
        ("s3://b//k", S3Url("b", "/k")),
        ("s3://b/d/", S3Url("b", "d/")),
        ("s3://b/a@b:c", S3Url("b", "a@b:c")),
        ("s3://b/", S3Url("b", "")),
        ("s3://b", S3Url("b", "")),
    ],
)
def test_the_key_of_an_s3_url_is_literal(url: str, expected: S3Url):
    assert parse_s3(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3:/b/k",
        "s3:///k",
        "http://b/k",
        "s3://b b/k",
        "s3://user:secret@b/k",
        "s3://b?x/k",
        "s3://b/\ud800",
    ],
)
def test_a_url_without_bucket_is_refused(url: str):
    with pytest.raises(Permanent) as refusal:
        parse_s3(url)
    assert "secret" not in str(refusal.value)


def test_an_encoded_url_has_a_decoded_form():
    assert S3Url("b", "my%20dir/%C3%A9").decoded == S3Url("b", "my dir/é")
    assert S3Url("b", "my dir/100%").decoded is None


@pytest.mark.parametrize(("key", "prefix"), [("", ""), ("a", "a/"), ("a/", "a/"), ("a//", "a//")])
def test_a_prefix_ends_with_a_slash(key: str, prefix: str):
    assert S3Url("b", key).prefix == prefix
