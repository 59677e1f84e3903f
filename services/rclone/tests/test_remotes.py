"""Which remote serves a URL; credentials go to no other host."""

import pytest

from poiesis_rclone.remotes import Place, parse, place_of, secrets
from poiesis_transfer.errors import Permanent

REMOTES = parse("""
[gs]
type = google cloud storage
service_account_credentials = {"k": "v"}
[gs+mine]
type = google cloud storage
[sftp]
type = sftp
host = One.example.org
pass = obscured
[sftp+two]
type = sftp
host = two.example.org
port = 2222
[davs]
type = webdav
url = https://dav.example.org/remote.php/webdav
bearer_token = t0ken
[dav]
type = webdav
url = http://dav.example.org:8080
[ftp]
type = ftp
host = ftp.example.org
[drive]
type = drive
""")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("gs://bucket/a b?#%/c", Place("gs:", "bucket/a b?#%/c")),
        ("GS://bucket/a", Place("gs:", "bucket/a")),
        ("gs://mine/a", Place("gs+mine:", "mine/a")),
        ("gs://bucket/a/", Place("gs:", "bucket/a", directory=True)),
        ("gs://bucket", Place("gs:", "bucket")),
        ("sftp://one.example.org/srv/a%20b%23", Place("sftp:/", "srv/a b#")),
        ("sftp://ONE.example.org:22/a", Place("sftp:/", "a")),
        ("sftp://two.example.org:2222/a/", Place("sftp+two:/", "a", directory=True)),
        ("sftp://one.example.org", Place("sftp:/", "")),
        ("davs://dav.example.org/x", Place("davs:", "x")),
        ("davs://dav.example.org:443/x", Place("davs:", "x")),
        ("dav://dav.example.org:8080/x", Place("dav:", "x")),
        ("ftp://ftp.example.org/a/b", Place("ftp:", "a/b")),
        ("drive://papers/a", Place("drive:", "papers/a")),
        ("gs://bucket/a\uff0e\uff0e/b\uff0f1", Place("gs:", "bucket/a\uff0e\uff0e/b\uff0f1")),
    ],
)
def test_a_url_selects_its_remote(url, place):
    assert place_of(url, REMOTES) == place


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp://three.example.org/a", "no remote for sftp://three.example.org/a"),
        ("sftp://one.example.org:23/a", "no remote for"),
        ("sftp://two.example.org/a", "no remote for"),
        ("davs://dav.example.org:8080/x", "no remote for"),
        ("azblob://c/b", "schemes with a remote: dav, davs, drive, ftp, gs, sftp"),
        ("sftp://user:s3cret@one.example.org/a", "must not contain a user name"),
        ("sftp://one.example.org/a?s3cret", "%3F"),
        ("sftp://one.example.org/a#s3cret", "%3F"),
        ("sftp://one.example.org/%ff", "UTF-8"),
        ("sftp://one.example.org/a/%2e%2e/b", "'.' or '..'"),
        ("sftp://one.example.org:x/a", "is not a valid URL"),
        ("gs://bucket/a/../b", "'.' or '..'"),
        ("gs://bucket//a", "empty"),
        ("gs://bucket/\0", "empty"),
        ("gs://bucket/a/\uff0e\uff0e/b", "or decoded as one by rclone"),
        ("gs://bucket/\uff0e", "or decoded as one by rclone"),
        ("gs://bucket/a/.\uff0e/b", "or decoded as one by rclone"),
        ("gs://bucket/a\uff0f..\uff0fb", "or decoded as one by rclone"),
        ("gs://bucket/a/..\u2400/b", "or decoded as one by rclone"),
        ("sftp://one.example.org/%EF%BC%8E%EF%BC%8E/a", "or decoded as one by rclone"),
        ("gs:bucket/a", "scheme"),
        ("/a", "scheme"),
    ],
)
def test_other_urls_are_refused_without_their_secrets(url, words):
    with pytest.raises(Permanent) as failure:
        place_of(url, REMOTES)
    assert words in str(failure.value)
    assert "s3cret" not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RCLONE_ENCRYPT_V0:\nxyz", "encrypted"),
        ("no sections", "not a valid INI file"),
        ("[file]\ntype = local", "this container's files"),
        ("[sftp]\ntype = sftp\nhost = h\nport = x", "an invalid port"),
        ("[sftp]\ntype = sftp", "has no host"),
        ("[dav]\ntype = webdav", "has no host"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(text, words):
    with pytest.raises(Permanent, match=words):
        parse(text)


def test_secrets_are_found_and_not_shown():
    assert list(secrets(REMOTES)) == ['{"k": "v"}', "obscured", "t0ken"]
    assert "t0ken" not in repr(REMOTES)
