"""AWS Signature Version 4 in headers, for S3. Pure; standard library only.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. Bodies are not part of the
signature (UNSIGNED-PAYLOAD): their checksums, which are signed headers, protect them.
"""

import functools
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
_SAFE_IN_PATH = "/-_.~"
_SAFE_IN_QUERY = "-_.~"


@dataclass(frozen=True)
class Credentials:
    """The credentials of one AWS identity."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def encoded_path(path: str) -> str:
    """Encode all bytes except unreserved ones and `/`. S3 encodes once and does not normalize paths."""
    return quote(path, safe=_SAFE_IN_PATH)


def encoded_query(query: Mapping[str, str]) -> str:
    """Return the query encoded and sorted, as it is signed."""
    return "&".join(
        f"{quote(name, safe=_SAFE_IN_QUERY)}={quote(value, safe=_SAFE_IN_QUERY)}"
        for name, value in sorted(query.items())
    )


def signed_headers(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """Return `headers` (lower-case, with `host`; all are signed) and the headers of the signature.

    `path` and `query` are encoded; `now` is UTC.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    date = moment[:8]
    sent = {**headers, "x-amz-content-sha256": UNSIGNED, "x-amz-date": moment}
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    names = sorted(sent)
    canonical = "\n".join(
        [
            method,
            path,
            query,
            *(f"{name}:{' '.join(sent[name].split())}" for name in names),
            "",
            ";".join(names),
            UNSIGNED,
        ]
    )
    scope = f"{date}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = _signing_key(credentials.secret_access_key, date, region)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},"
        f"SignedHeaders={';'.join(names)},Signature={signature}"
    )
    return sent


@functools.lru_cache(maxsize=16)
def _signing_key(secret: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
