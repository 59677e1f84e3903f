import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poiesis_api.bodies import JSON_VALUES, SMALL_BYTES, Incoming, decoded, json_text
from poiesis_api.config import Limits
from poiesis_api.errors import BodyTooLarge, InvalidTask, MalformedBody, ServerBusy, UnsupportedEncoding

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
        ("gzip", TEXT, MalformedBody, "the body is not valid gzip, although Content-Encoding names it"),
        ("gzip", b"", MalformedBody, "is truncated: its gzip stream does not end"),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0)[:-9],
            MalformedBody,
            "is truncated: its gzip stream does not end",
        ),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0) * 2,
            MalformedBody,
            "has data after the end of its gzip stream",
        ),
        (
            "gzip",
            gzip.compress(TEXT, mtime=0) + b"x",
            MalformedBody,
            "has data after the end of its gzip stream",
        ),
        ("deflate", b"\x00", MalformedBody, "is truncated: its deflate stream does not end"),
        ("deflate", b"\x07", MalformedBody, "the body is not valid deflate"),
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
            "unsupported Content-Encoding 'br' \\(supported: gzip, deflate",
        ),
        ("gzip, gzip", TEXT, UnsupportedEncoding, "'gzip, gzip'"),
    ],
)
def test_what_cannot_be_decoded_is_refused(encoding, sent, error, words):
    with pytest.raises(error, match=words):
        decoded(sent, encoding, LIMIT)


def test_body_of_maximum_length_is_accepted():
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
        (('{"name": "' + "\u00e4" * 70_000).encode() + b"\xff", "byte 0xff at offset 140010"),
        ("\u00e4".encode() * 40_000 + b"\xc3", "byte 0xc3 at offset 80000"),
        (b"[NaN]", "line 1 column 2"),
        (b'{"a": "\\"", "b\\\\": [\n NaN]}', "NaN at line 2 column 2"),
        (b"[1, -Infinity]", "line 1 column "),
        (b'{"NaN": Infinity}', "line 1 column 9"),
    ],
)
def test_body_not_json_in_utf_8_is_rejected(body, words):
    with pytest.raises(MalformedBody, match=f"^the body is not JSON.*{words}"):
        json_text(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[[]]," * JSON_VALUES + b"1]",
        b'{"a":"NaN","b":[' + b"[]," * JSON_VALUES + b"1]}",
        b'{"env":{' + b'"a":"",' * JSON_VALUES + b'"b":""}}',
        b'"a"' * JSON_VALUES * 4 + b"," + b"NaN",
    ],
    ids=["nested", "NaN", "map", "strings"],
)
def test_too_many_values_are_rejected_before_parsing(body):
    tracemalloc.start()
    with pytest.raises((InvalidTask, MalformedBody), match="too many JSON values"):
        json_text(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        '{"script": "' + "a,b[{" * JSON_VALUES + '"}',
        '{"script": "' + '\\"' * JSON_VALUES + '", "word": "NaN"}',
        '{"script": "' + "\u2603" * 100_000 + '"}',
    ],
    ids=["separators", "quotes", "characters"],
)
def test_what_stands_in_a_string_counts_for_nothing(text):
    assert json_text(text.encode()) == text.encode()


def test_only_large_bodies_count_against_budget():
    incoming = Incoming(Limits(incoming_bytes=2 * SMALL_BYTES))
    with incoming.body() as first, incoming.body() as second:
        first(3 * SMALL_BYTES)
        second(SMALL_BYTES)
        with pytest.raises(ServerBusy):
            second(SMALL_BYTES + 1)
    with incoming.body() as again:
        again(3 * SMALL_BYTES)
