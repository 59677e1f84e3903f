"""The body of a request as JSON text: decoded, within its limit, or refused with a sentence.

The HTTP server leaves bodies as they came (`auto_decompress` off, see app.py): what it cannot decode it would
answer itself, in another shape, and a body that grows must be stopped while it grows.
"""

import asyncio
import codecs
import zlib

from aiohttp import ClientPayloadError, hdrs, web
from pydantic_core import from_json

from poiesis_api.config import Limits
from poiesis_api.errors import BodyTooLarge, BodyTooSlow, MalformedBody, UnsupportedEncoding, shown

ENCODINGS = ("gzip", "deflate")
_DEFLATE_METHOD = 8  # RFC 1950, 2.2: how a zlib stream begins; some clients send what is in it alone
_NOT_FINITE = (b"NaN", b"Infinity")  # what the parser takes, and JSON does not have (RFC 8259, 6)


async def read_json(request: web.Request, limits: Limits) -> bytes:
    """JSON in UTF-8. Raise BodyTooLarge, BodyTooSlow, UnsupportedEncoding or MalformedBody.

    Whether its syntax is right is for the parser to say, apart from what that is too lenient with.
    """
    try:
        async with asyncio.timeout(limits.body_seconds):
            sent = await request.read()
    except TimeoutError as error:
        raise BodyTooSlow(f"the body has not come within {limits.body_seconds:g} seconds") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(limits.body_bytes) from error
    except (ClientPayloadError, web.RequestPayloadError, ConnectionError) as error:  # the last: it hung up
        raise MalformedBody(f"the body cannot be read: {error}") from error
    encoding = ", ".join(request.headers.getall(hdrs.CONTENT_ENCODING, []))
    return json_text(decoded(sent, encoding, limits.body_bytes))


def decoded(sent: bytes, encoding: str, limit: int) -> bytes:
    """Without Content-Encoding (RFC 9110, 8.4). Raise BodyTooLarge, UnsupportedEncoding or MalformedBody."""
    match encoding.strip().lower():
        case "" | "identity":
            return sent
        case "gzip" | "x-gzip":
            return _inflated(sent, 16 + zlib.MAX_WBITS, "gzip", limit)
        case "deflate":
            wrapped = sent[:1] and sent[0] & 0xF == _DEFLATE_METHOD
            return _inflated(sent, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, "deflate", limit)
    raise UnsupportedEncoding(
        f"Content-Encoding {shown(encoding)} is not supported; possible: {', '.join(ENCODINGS)}, or none",
        headers={"Accept-Encoding": ", ".join(ENCODINGS)},
    )


def json_text(body: bytes) -> bytes:
    """`body` without a byte order mark. Raise MalformedBody for other encodings, and for NaN and Infinity."""
    text = body.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        raise MalformedBody("the body is not JSON: it is empty")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in text[:4]:
        raise MalformedBody(
            "the body is not JSON in UTF-8: it looks like UTF-16 or UTF-32 (RFC 8259, section 8.1)"
        )
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(
            f"the body is not JSON in UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}"
        ) from error
    if any(word in text for word in _NOT_FINITE):
        _refuse_infinity(text)
    return text


def _refuse_infinity(text: bytes) -> None:
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error


def _inflated(sent: bytes, wbits: int, name: str, limit: int) -> bytes:
    """No more memory than `limit` and a little. One member only: thousands of empty ones would cost hours."""
    stream = zlib.decompressobj(wbits)
    try:
        body = stream.decompress(sent, limit + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not {name}, which its Content-Encoding says: {error}") from error
    if len(body) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise MalformedBody(f"the body is cut off: its {name} stream does not end")
    if stream.unused_data:
        raise MalformedBody(f"the body goes on after the end of its {name} stream")
    return body


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than {limit} bytes")
