import errno
import os

import pytest

from poiesis_transfer.errors import (
    Permanent,
    Retryable,
    TransferError,
    Unsendable,
    reading_error,
    writing_error,
)


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (
            errno.ENOSPC,
            Permanent,
            "volume is full: no space left to write /d/f; request more with resources.disk_gb",
        ),
        (errno.EDQUOT, Permanent, "disk_gb"),
        (errno.EISDIR, Permanent, "both as a file and as a directory"),
        (errno.EEXIST, Permanent, "both as a file and as a directory"),
        (errno.ENAMETOOLONG, Permanent, "too long"),
        (errno.EROFS, Permanent, "read-only file system"),
        (errno.EACCES, Permanent, "permission denied"),
        (errno.EIO, Retryable, "input/output error"),
    ],
)
def test_why_a_file_cannot_be_written(number: int, kind: type[TransferError], words: str):
    failure = writing_error(of(number), "/d/f")
    assert type(failure) is kind
    assert words in str(failure)
    assert "/d/f" in str(failure)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, Unsendable, "permission denied; executors must leave outputs readable"),
        (errno.ELOOP, Unsendable, "too many levels of symbolic links"),
        (errno.ENAMETOOLONG, Unsendable, "file name too long"),
        (errno.EIO, Retryable, "input/output error"),
    ],
)
def test_why_a_file_cannot_be_read(number: int, kind: type[TransferError], words: str):
    failure = reading_error(of(number), "/d/f")
    assert type(failure) is kind
    assert words in str(failure)


def test_exit_codes_are_the_contracts():
    assert (Permanent("").exit_code, Retryable("").exit_code) == (65, 75)
