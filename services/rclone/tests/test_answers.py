"""Errors of rclone become retryable or permanent, without credentials."""

import pytest

from poiesis_rclone.answers import failure, opening_failure, redacted
from poiesis_transfer.errors import NotFound, Permanent, Retryable


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
        ("NewFs: couldn't connect SSH: dial tcp 127.0.0.1:12: connect: connection refused", 500, Retryable),
        ("googleapi: got HTTP response code 503", 500, Retryable),
        ("read tcp: i/o timeout", 500, Retryable),
        ('Propfind "http://h/403/not found": connection refused', 500, Retryable),
        ("something new", 500, Retryable),
    ],
)
def test_only_permanent_failures_end_the_filer(error, status, kind):
    failed = failure("cannot fetch x", error, status, ())
    assert type(failed) is kind
    assert str(failed).startswith("cannot fetch x: ")


# As rclone 1.75 reports them for remotes of these types.
MISCONFIGURED = [
    "NewFS decrypt password: input too short when revealing password - is it obscured?",
    "couldn't decrypt password: base64 decode failed when revealing password - is it obscured?: illegal",
    'couldn\'t parse config item "tls" = "perhaps" as bool: parsing "perhaps" as bool failed',
    "implicit TLS and explicit TLS are mutually incompatible, please revise your config",
    "failed to parse private key file: ssh: no key found",
    "failed to parse private key file: ssh: this private key is passphrase protected",
    "failed to read private key file: open /none: no such file or directory",
    "couldn't parse known_hosts_file: open /none: no such file or directory",
    "couldn't connect to ssh-agent: SSH agent requested but SSH_AUTH_SOCK not-specified",
    'parse "http://127.0.0.1:x/": invalid port ":x" after host',
    "odd number of headers supplied",
    'didn\'t find backend called "nonsense"',
    'didn\'t find section in config file ("none")',
    "failed configuring Google Cloud Storage Service Account: error processing credentials: invalid",
    "no authentication method configured",
    "create new shared key credential failed: decode account key: illegal base64 data at input byte 3",
    "s3: chunk size: 1Ki is less than 5Mi",
    "secret_access_key not found",
    'failed to create oauth client: empty token found - please run "rclone config reconnect drive-none:"',
    "alias can't point to an empty remote - check the value of the remote setting",
    "outdated config - please reconfigure this backend",
    "password could not revealed",
    "530 Login incorrect.",
]
AWAY = [
    'NewFs: failed to make FTP connection to "h:1": dial tcp 127.0.0.1:1: connect: connection refused',
    'NewFs: failed to make FTP connection to "h:21": 421 Too many connections',
    'NewFs: failed to make FTP connection to "h:21": EOF',
    "NewFs: couldn't connect SSH: dial tcp: lookup data.example.org on 10.96.0.10:53: no such host",
    "NewFs: couldn't connect SSH: ssh: handshake failed: read tcp 10.1.1.1:5->10.1.1.2:22: i/o timeout",
    'Post "http://127.0.0.1:1/v3/auth/tokens": dial tcp 127.0.0.1:1: connect: connection refused',
    'Post "https://oauth.example.org/token": context deadline exceeded',
    "couldn't fetch token: 503 Service Unavailable",
    "failed to configure Google Cloud Storage: google: could not find default credentials",
]


@pytest.mark.parametrize("error", MISCONFIGURED)
def test_a_misconfigured_remote_ends_the_filer(error):
    failed = opening_failure("cannot open the store of ftp://h/a", error, 500, ())
    assert isinstance(failed, Permanent)
    assert error[:20] in str(failed)


@pytest.mark.parametrize("error", AWAY)
def test_a_store_that_does_not_respond_is_retryable(error):
    assert type(opening_failure("cannot open the store of ftp://h/a", error, 500, ())) is Retryable


def test_no_credential_is_spoken():
    error = 'Get "https://u:pw@host/c/b?sv=1&sig=abc": 403\n  key SECRETKEY'
    assert redacted(error, ["SECRETKEY"]) == 'Get "https://host/c/b": 403 key …'


def test_a_long_error_is_cut():
    assert len(redacted("x" * 5000, ())) == 501
