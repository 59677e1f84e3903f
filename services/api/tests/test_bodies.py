import gzip
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.bodies import decoded, json_text
from poiesis_api.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding

LIMIT = 1000
TEXT = b'{"executors": []}'
RAW_DEFLATE = zlib.compress(TEXT, wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT, mtime=0)),
        ("x-gzip", gzip.compress(TEXT, mtime=0)),
        (" GZip ", gzip.compress(TEXT, mtime=0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", RAW_DEFLATE),
    ],
)
def test_a_body_is_decoded(encoding, sent):
    assert decoded(sent, encoding, LIMIT) == TEXT


@pytest.mark.parametrize(
    ("encoding", "sent", "error", "words"),
    [
        ("gzip", TEXT, MalformedBody, "the body is not gzip, which its Content-Encoding says"),
        ("gzip", b"", MalformedBody, "is cut off: its gzip stream does not end"),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0)[:-9],
            MalformedBody,
            "is cut off: its gzip stream does not end",
        ),
        ("gzip", gzip.compress(TEXT, mtime=0) * 2, MalformedBody, "goes on after the end of its gzip stream"),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0) + b"x",
            MalformedBody,
            "goes on after the end of its gzip stream",
        ),
        ("deflate", b"\x00", MalformedBody, "is cut off: its deflate stream does not end"),
        ("deflate", b"\x07", MalformedBody, "the body is not deflate"),
        (
            "gzip",
            gzip.compress(b" " * (LIMIT + 1), mtime=0),
            BodyTooLarge,
            "the body is longer than 1000 bytes",
        ),
        ("deflate", zlib.compress(b" " * 10**8), BodyTooLarge, "the body is longer than 1000 bytes"),
        (
            "br",
            TEXT,
            UnsupportedEncoding,
            "Content-Encoding 'br' is not supported; possible: gzip, deflate",
        ),
        ("gzip, gzip", TEXT, UnsupportedEncoding, "'gzip, gzip'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(encoding, sent, error, words):
    with pytest.raises(error, match=words):
        decoded(sent, encoding, LIMIT)


def test_a_body_may_be_as_long_as_the_limit():
    assert decoded(gzip.compress(b" " * LIMIT), "gzip", LIMIT) == b" " * LIMIT


@given(st.sampled_from(["gzip", "deflate", "x", ""]), st.binary())
def test_any_bytes_are_decoded_or_refused(encoding, sent):
    with suppress(BodyTooLarge, MalformedBody, UnsupportedEncoding):
        assert len(decoded(sent, encoding, LIMIT)) <= max(LIMIT, len(sent))


def test_a_byte_order_mark_is_ignored():
    assert json_text(b"\xef\xbb\xbf" + TEXT) == TEXT


@pytest.mark.parametrize("text", ['{"name": "NaN"}', '{"name": "-Infinity"}', "{} ", "[1e999]"])
def test_text_is_left_as_it_is(text):
    assert json_text(text.encode()) == text.encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        ("{}".encode("utf-16"), "it looks like UTF-16 or UTF-32"),
        ("{}".encode("utf-16-le"), "it looks like UTF-16 or UTF-32"),
        ("{}".encode("utf-16-be"), "it looks like UTF-16 or UTF-32"),
        ("{}".encode("utf-32"), "it looks like UTF-16 or UTF-32"),
        ('{"name": "ä"}'.encode("latin-1"), "byte 0xe4 at offset 10"),
        (b'{"name": "\xed\xa0\x80"}', "byte 0xed at offset 10"),
        (b"[NaN]", "line 1 column 2"),
        (b"[1, -Infinity]", "line 1 column "),
        (b'{"NaN": Infinity}', "line 1 column 9"),
    ],
)
def test_what_is_not_json_in_utf_8_is_refused(body, words):
    with pytest.raises(MalformedBody, match=f"^the body is not JSON.*{words}"):
        json_text(body)
