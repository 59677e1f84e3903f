"""What rclone says becomes passing or permanent, in words without credentials."""

import pytest

from poiesis_rclone.answers import failure, spoken
from poiesis_transfer.errors import NotFound, Passing, Permanent


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ("object not found", 404, NotFound),
        ("error in ListJSON: directory not found", 404, NotFound),
        ("NoSuchBucket: The specified bucket does not exist", 500, NotFound),
        ("NewFs: couldn't connect SSH: ssh: handshake failed: ssh: unable to authenticate", 500, Permanent),
        ("couldn't list files: 401 Unauthorized: 401 Unauthorized", 500, Permanent),
        ("googleapi: Error 403: x does not have storage.objects.get access, forbidden", 500, Permanent),
        ("operation error S3: PutObject, StatusCode: 403, AccessDenied", 500, Permanent),
        ("530 Login incorrect.", 500, Permanent),
        ("open /task/root/x: no space left on device", 500, Permanent),
        ("preallocate: file too big for remaining disk space", 500, Permanent),
        ("didn't find section in config file", 500, Permanent),
        ("NewFs: couldn't connect SSH: dial tcp 127.0.0.1:12: connect: connection refused", 500, Passing),
        ("googleapi: got HTTP response code 503", 500, Passing),
        ("read tcp: i/o timeout", 500, Passing),
        ('Propfind "http://h/403/not found": connection refused', 500, Passing),
        ("something new", 500, Passing),
    ],
)
def test_only_what_cannot_help_ends_the_filer_at_once(error, status, kind):
    failed = failure("cannot fetch x", error, status, ())
    assert type(failed) is kind
    assert str(failed).startswith("cannot fetch x: ")


def test_no_credential_is_spoken():
    error = 'Get "https://u:pw@host/c/b?sv=1&sig=abc": 403\n  key SECRETKEY'
    assert spoken(error, ["SECRETKEY"]) == 'Get "https://host/c/b": 403 key …'


def test_a_long_error_is_cut():
    assert len(spoken("x" * 5000, ())) == 501
