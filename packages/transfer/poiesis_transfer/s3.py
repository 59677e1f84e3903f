"""The part of S3's REST API that filers need: get, head, list, put and multipart uploads.

Every request is signed in its headers and sent by `web`, which provides connections, retries and error
messages. `fetch` does the downloads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from poiesis_transfer import checksums, fetch, http_object, pool, web
from poiesis_transfer.checksums import Running
from poiesis_transfer.config import S3Config
from poiesis_transfer.credentials import Identity
from poiesis_transfer.errors import Denied, NotFound, Permanent, Retryable, TransferError
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.sigv4 import encoded_path, encoded_query, signed_headers
from poiesis_transfer.urls import S3Url, shown
from poiesis_transfer.web import Url, Web

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
WHOLE_BYTES = 64 * MIB  # the largest file that one request uploads; longer ones are uploaded in parts
SEND_PART_BYTES = 16 * MIB
MAX_PARTS = 10_000  # S3's limit
PARALLEL_PARTS = 8
CHECKSUM = "crc64nvme"
_ERROR_BYTES = 8 * 1024
_OK = 200

_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,100})</Code>")
_REGION_ELEMENT = re.compile(rb"<Region>([a-z0-9-]{1,40})</Region>")
_REGION = re.compile(r"[a-z0-9-]{1,40}")  # it becomes part of a host name
_DNS_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")
_WORDS = {
    "NoSuchBucket": "the bucket does not exist",
    "NoSuchKey": "no such object",
    "AccessDenied": "access denied: the service's credentials do not allow it",
    "AllAccessDisabled": "access denied: the service's credentials do not allow it",
    "InvalidAccessKeyId": "the store rejected the service's access key",
    "SignatureDoesNotMatch": "the store rejected the service's secret key",
    "ExpiredToken": "the service's session token has expired",
    "InvalidToken": "the store rejected the service's session token",
    "RequestTimeTooSkewed": "the clocks of this node and of the store differ too much",
    "PermanentRedirect": "the bucket is in another region than the service is configured for",
    "AuthorizationHeaderMalformed": "the bucket is in another region than the service is configured for",
    "AuthorizationQueryParametersError": "the bucket is in another region than the service is configured for",
    "KeyTooLongError": "the key is longer than 1024 bytes",
    "PreconditionFailed": "the object changed while it was read",
    "InvalidObjectState": "the object is archived and must be restored first",
    "SlowDown": "the store asked to slow down",
    "XMinioStorageFull": "the storage is full",
    "InvalidBucketName": "invalid bucket name or key",
    "BadDigest": "the data that the store received does not match its checksum",
    "XAmzContentChecksumMismatch": "the data that the store received does not match its checksum",
}
_RETRYABLE_CODES = {
    "RequestTimeout",
    "NoSuchUpload",
    "MalformedXML",  # these three: the request was valid when it was sent, so it was damaged on the way
    "InvalidPart",
    "InvalidPartOrder",
    "BadDigest",
    "XAmzContentChecksumMismatch",
    "OperationAborted",
    "IncompleteBody",
    "PreconditionFailed",
}
_PERMANENT_KINDS = {"NoSuchKey": NotFound, "NoSuchVersion": NotFound, "AccessDenied": Denied}
_WORDLESS_CODES = {"", "400", "401", "403", "404"}  # of responses without a body
_FORBIDDEN = 403


@dataclass(frozen=True)
class S3Object:
    """One entry of a listing."""

    key: str
    size: int


class S3Store:
    """One S3 endpoint with one identity. `stores` holds all that a filer uses."""

    def __init__(self, config: S3Config, connections: Web, who: Identity) -> None:
        self._config = config
        self._web = connections
        self._who = who
        self._where = _where(config)
        self._checksums = config.checksums
        self._regions: dict[str, str] = {}

    def list(self, directory: S3Url) -> Iterator[S3Object]:
        """Return all objects below a directory, sorted by key."""
        token: str | None = None
        while True:
            page = self._page(directory, token)
            yield from _contents(page)
            token = page.findtext("{*}NextContinuationToken")
            if page.findtext("{*}IsTruncated") != "true" or not token:
                return

    def is_directory(self, url: S3Url) -> bool:
        """Return whether there are keys below the URL."""
        return self._page(url, None, limit=1).find("{*}Contents") is not None

    def is_object(self, url: S3Url) -> bool:
        """Return whether there is an object at the key."""
        what = f"cannot read {url} at {self._where}"

        def head() -> bool:
            with self._request("HEAD", url, what) as answer:
                self._check_status(what, url, answer)
            return True

        try:
            return self._web.retry.call(head)
        except NotFound:
            return False

    def download(self, source: S3Url, destination: fetch.Sink) -> None:
        """Write an object to `destination`."""
        what = f"cannot read {source} (input {destination.path}) at {self._where}"
        fetch.fetch(_Object(self, source, what), destination, self._web.retry)

    def upload(self, source: SourceFile, target: S3Url, progress: Progress) -> None:
        """Store a file:

        up to 64 MiB in one request, otherwise in parts. A failed multipart upload is aborted.
        """
        what = f"cannot write {target} (output {source.path}) at {self._where}"
        if source.size > WHOLE_BYTES:
            _Upload(self, what, source, target, progress).run()
            return
        self.put(what, Slice(source, 0, source.size, progress), target, {})

    def put(self, what: str, part: Slice, target: S3Url, query: Mapping[str, str]) -> str:
        """Send bytes in one request, with retries, and return the ETag."""
        try:
            return self._web.retry.call(lambda: self._put_once(what, part, target, query))
        except BaseException:
            part.take_back()
            raise

    def _put_once(self, what: str, part: Slice, target: S3Url, query: Mapping[str, str]) -> str:
        headers = part.checksum_headers() if self._checksums else {}
        with self._request("PUT", target, what, query=query, headers=headers, body=part) as answer:
            self._check_status(what, target, answer)
            answer.read()
            _check_stored(what, part, _lower(answer), etags_are_md5=self._config.etags_are_md5)
            return answer.headers.get("etag") or ""

    def post(
        self, what: str, url: S3Url, query: Mapping[str, str], headers: Mapping[str, str], text: str
    ) -> Element:
        """Send a request of a multipart upload and return the response's XML.

        A failure may have status 200.
        """

        def once() -> Element:
            sent = headers if self._checksums else {}
            with self._request("POST", url, what, query=query, headers=sent, body=_Text(text)) as answer:
                self._check_status(what, url, answer)
                body = answer.read()
            root = _xml(what, body)
            if root.tag.rpartition("}")[2] == "Error":
                raise answer_error(what, 500, root.findtext("{*}Code") or "", answer.headers)
            return root

        return self._web.retry.call(once)

    def abort(self, what: str, url: S3Url, query: Mapping[str, str]) -> None:
        """Abort a multipart upload, because the store keeps and charges for unfinished parts.

        It is attempted once, also while the filer stops.
        """
        with pool.shielded(), self._request("DELETE", url, what, query=query) as answer:
            if answer.status not in {_OK, 204, 404}:
                raise self._failure(what, url, answer)

    def head(self, what: str, url: S3Url) -> Mapping[str, str]:
        """Return the headers of an object; an empty mapping if the status is not 200."""
        headers = {"x-amz-checksum-mode": "ENABLED"}
        with self._request("HEAD", url, what, headers=headers) as answer:
            return _lower(answer) if answer.status == _OK else {}

    @property
    def sends_checksums(self) -> bool:
        """Return whether checksums are sent: until the store reports that it does not support them."""
        return self._checksums

    def get(self, url: S3Url, what: str, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        """Send one GET for an object or a range of it."""
        return self._request("GET", url, what, headers={"x-amz-checksum-mode": "ENABLED", **headers})

    def failure(self, what: str, url: S3Url, answer: HTTPResponse) -> TransferError:
        """Return the error for a response that is not a success."""
        return self._failure(what, url, answer)

    @property
    def etags_are_md5(self) -> bool:
        """Return whether ETags of this store are MD5 sums, as the operator configured."""
        return self._config.etags_are_md5

    def _page(self, directory: S3Url, token: str | None, *, limit: int | None = None) -> Element:
        what = f"cannot list {directory} at {self._where}"
        query = {"list-type": "2", "prefix": directory.prefix, "encoding-type": "url"}
        if token:
            query["continuation-token"] = token
        if limit:
            query["max-keys"] = str(limit)
        bucket = directory.with_key("")

        def once() -> Element:
            with self._request("GET", bucket, what, query=query) as answer:
                self._check_status(what, bucket, answer)
                return _xml(what, answer.read())

        return self._web.retry.call(once)

    @contextmanager
    def _request(
        self,
        method: str,
        url: S3Url,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: web.Body | None = None,
    ) -> Iterator[HTTPResponse]:
        region = self._regions.get(url.bucket, self._config.region)
        place, path = _place(self._config, url, region)
        sent_query = encoded_query(query or {})
        given = {"host": place.authority, **(headers or {})}
        if self._config.requester_pays:
            given["x-amz-request-payer"] = "requester"
        signed = self._sign(what, (method, path, sent_query), given, region)
        target = f"{path}?{sent_query}" if sent_query else path
        request = Url(place.scheme, place.host, place.port, target)
        with self._web.request(method, request, what, signed, body) as answer:
            yield answer

    def _sign(
        self, what: str, request: tuple[str, str, str], headers: Mapping[str, str], region: str
    ) -> Mapping[str, str]:
        try:
            credentials = self._who.credentials()
        except TransferError as failure:
            raise type(failure)(f"{what}: {failure}") from failure
        if credentials is None:
            return headers
        amazons = {name: value for name, value in headers.items() if name.startswith(("host", "x-amz-"))}
        signed = signed_headers(
            *request, amazons, credentials=credentials, region=region, now=datetime.now(UTC)
        )
        return {**headers, **signed}

    def _check_status(self, what: str, url: S3Url, answer: HTTPResponse) -> None:
        if answer.status != _OK:
            raise self._failure(what, url, answer)

    def _failure(self, what: str, url: S3Url, answer: HTTPResponse) -> TransferError:
        body = _start(answer)
        match = _CODE.search(body)
        code = match[1].decode() if match else ""
        if self._has_moved(url, answer, body):
            return Retryable(f"{what}: the bucket is in another region than the service is configured for")
        if code == "NotImplemented" and self._checksums:
            self._checksums = False
            return Retryable(f"{what}: the store does not support checksums")
        return answer_error(what, answer.status, code, answer.headers)

    def _has_moved(self, url: S3Url, answer: HTTPResponse, body: bytes) -> bool:
        """Return whether the response names another region of the bucket, and use that region from now on."""
        region = _named_region(answer, body)
        known = self._regions.get(url.bucket, self._config.region)
        if answer.status not in {301, 307, 400, 403} or region is None or region == known:
            return False
        if url.bucket in self._regions:
            return False
        self._regions[url.bucket] = region
        return True


class _Object:
    """An object as a source for `fetch`."""

    def __init__(self, store: S3Store, url: S3Url, what: str) -> None:
        self._store = store
        self._url = url
        self.what = what

    def get(self, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        return self._store.get(self._url, self.what, headers)

    def failure(self, answer: HTTPResponse) -> TransferError:
        return self._store.failure(self.what, self._url, answer)

    def version(self, answer: HTTPResponse) -> fetch.Version:
        if answer.length is None:
            raise Retryable(f"{self.what}: the response does not contain the length of the object")
        tag = answer.headers.get("etag")
        return fetch.Version(
            size=answer.length,
            tag=tag,
            condition={"if-match": tag} if tag else None,
            expected=checksums.expected(_lower(answer), etags_are_md5=self._store.etags_are_md5),
            modified=http_object.modified(answer),
        )


class Slice:
    """A part of a file as a request body. If it is sent again, progress counts its bytes once."""

    def __init__(self, source: SourceFile, offset: int, size: int, progress: Progress) -> None:
        self._source = source
        self._offset = offset
        self._progress = progress
        self._counted = 0
        self._crc: Running | None = None
        self.size = size

    def blocks(self) -> Iterable[bytes]:
        """Return all bytes of the part."""
        self.take_back()
        for block in self._source.blocks(self._offset, self.size):
            yield block
            self._counted += len(block)
            self._progress.moved(len(block))

    def take_back(self) -> None:
        """Subtract the bytes of the last attempt from the progress."""
        if self._counted:
            self._progress.moved(-self._counted)
            self._counted = 0

    def checksum(self, algorithm: str) -> Running:
        """Return the checksum of the part."""
        return checksums.of_blocks(algorithm, self._source.blocks(self._offset, self.size))

    @property
    def crc(self) -> Running:
        """Return the checksum that is sent with the part, computed once."""
        if self._crc is None:
            self._crc = self.checksum(CHECKSUM)
        return self._crc

    def checksum_headers(self) -> dict[str, str]:
        """Return the headers by which the store verifies the part."""
        return {f"x-amz-checksum-{CHECKSUM}": checksums.in_base64(self.crc.digest())}


@dataclass(frozen=True)
class _Text:
    text: str

    @property
    def size(self) -> int:
        return len(self.text.encode())

    def blocks(self) -> Iterable[bytes]:
        yield self.text.encode()


class _Upload:
    """A multipart upload of one file. It is aborted if it fails."""

    def __init__(
        self, store: S3Store, what: str, source: SourceFile, target: S3Url, progress: Progress
    ) -> None:
        self._store = store
        self._what = what
        self._source = source
        self._target = target
        self._progress = progress
        self._part_bytes = part_size(source.size)
        self._etags: dict[int, str] = {}
        self._parts: dict[int, Slice] = {}
        self._id: dict[str, str] = {}

    def run(self) -> None:
        announced = {"x-amz-checksum-algorithm": CHECKSUM.upper(), "x-amz-checksum-type": "FULL_OBJECT"}
        begun = self._store.post(self._what, self._target, {"uploads": ""}, announced, "")
        self._id = {"uploadId": begun.findtext("{*}UploadId") or ""}
        try:
            offsets = range(0, self._source.size, self._part_bytes)
            pool.for_each(offsets, self._send, concurrency=PARALLEL_PARTS)
            self._complete()
        except NotFound as failure:  # the upload does not exist: its id was damaged on the way
            self._abort()
            raise Retryable(str(failure)) from failure
        except BaseException:
            self._abort()
            raise

    def _send(self, offset: int) -> None:
        number = offset // self._part_bytes + 1
        size = min(self._part_bytes, self._source.size - offset)
        part = self._parts[number] = Slice(self._source, offset, size, self._progress)
        query = {"partNumber": str(number), **self._id}
        self._etags[number] = self._store.put(self._what, part, self._target, query)

    def _complete(self) -> None:
        listed = "".join(self._listed(number) for number in sorted(self._etags))
        whole = self._whole_checksum()
        headers = {f"x-amz-checksum-{CHECKSUM}": whole, "x-amz-checksum-type": "FULL_OBJECT"} if whole else {}
        text = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
        try:
            done = self._store.post(self._what, self._target, self._id, headers, text)
        except (Retryable, NotFound) as failure:
            gone = isinstance(failure, NotFound) or "NoSuchUpload" in str(failure)
            if gone and self._is_there(whole):  # the upload was completed, but the response was lost
                return
            raise
        stored = done.findtext(f"{{*}}Checksum{CHECKSUM.upper()}")
        if whole and stored and stored != whole:
            raise Retryable(f"{self._what}: checksum mismatch: stored data does not match the data sent")

    def _is_there(self, whole: str | None) -> bool:
        """Return whether the stored object matches the upload, by its checksum or its multipart ETag."""
        headers = self._store.head(self._what, self._target)
        stored = headers.get(f"x-amz-checksum-{CHECKSUM}")
        if whole and stored:
            return whole == stored
        etags = [self._etags[number].strip('"') for number in sorted(self._etags)]
        return headers.get("etag", "").strip('"') == checksums.etag_of_parts(etags)

    def _listed(self, number: int) -> str:
        checksum = ""
        if self._store.sends_checksums:
            name = f"Checksum{CHECKSUM.upper()}"
            checksum = f"<{name}>{checksums.in_base64(self._parts[number].crc.digest())}</{name}>"
        etag = self._etags[number].replace("&", "&amp;").replace("<", "&lt;")
        return f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{checksum}</Part>"

    def _whole_checksum(self) -> str | None:
        if not self._store.sends_checksums:
            return None
        parts = [self._parts[number].crc for number in sorted(self._parts)]
        return checksums.in_base64(checksums.combined(CHECKSUM, parts))

    def _abort(self) -> None:
        """Abort the upload. A failure is only logged, because the error that led here is raised."""
        try:
            self._store.abort(self._what, self._target, self._id)
        except TransferError as failure:
            logger.warning("cannot abort multipart upload", extra={"error": str(failure)})


def part_size(size: int) -> int:
    """Return the bytes per part of an upload:

    16 MiB, or more (whole MiB) to stay within S3's 10,000 parts.
    """
    needed = -(-size // MAX_PARTS)
    return max(SEND_PART_BYTES, -(-needed // MIB) * MIB)


def answer_error(what: str, status: int, code: str, headers: web.Headers) -> TransferError:
    """Return the error for a response of S3."""
    if code in _WORDLESS_CODES:
        if status == _FORBIDDEN:
            code = "AccessDenied"
        else:
            return web.status_error(what, status, headers)
    message = (
        f"{what}: {_WORDS[code]} (HTTP {status}, {code})"
        if code in _WORDS
        else f"{what}: HTTP {status} {code}"
    )
    if code in _RETRYABLE_CODES or isinstance(web.status_error("", status, {}), Retryable):
        return Retryable(message, retry_after=web.retry_after(headers))
    return _PERMANENT_KINDS.get(code, Permanent)(message)


def _check_stored(what: str, part: Slice, headers: Mapping[str, str], *, etags_are_md5: bool) -> None:
    """Raise Retryable if the checksum or ETag in the response does not match the uploaded data."""
    stored = headers.get(f"x-amz-checksum-{CHECKSUM}")
    if stored is not None:
        matches = stored == checksums.in_base64(part.crc.digest())
    elif etags_are_md5 and (digest := checksums.md5_etag(headers)):
        matches = part.checksum("md5").digest() == digest
    else:
        return
    if not matches:
        raise Retryable(f"{what}: checksum mismatch: stored data does not match the data sent")


def _where(config: S3Config) -> str:
    """Return the store, and the name of the credentials unless they are the deployment's, for messages."""
    place = shown(config.endpoint_url or "AWS")
    return f"{place} with the credentials {config.name}" if config.name else place


def _place(config: S3Config, url: S3Url, region: str) -> tuple[Url, str]:
    """Return the server of a bucket and the encoded path of the key on it."""
    endpoint = Url.parse(config.endpoint_url or _amazons(region))
    base = endpoint.target.rstrip("/")
    key = encoded_path(url.key)
    if _is_virtual(config, url.bucket, endpoint.host):
        host = f"{url.bucket}.{endpoint.host}"
        return Url(endpoint.scheme, host, endpoint.port, ""), f"{base}/{key}"
    return endpoint, f"{base}/{url.bucket}/{key}" if key else f"{base}/{url.bucket}"


def _is_virtual(config: S3Config, bucket: str, host: str) -> bool:
    if config.addressing_style == "auto":
        return bool(_DNS_BUCKET.fullmatch(bucket)) and not _ADDRESS.fullmatch(host)
    return config.addressing_style == "virtual"


def _amazons(region: str) -> str:
    return f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _lower(answer: HTTPResponse) -> dict[str, str]:
    """Return the headers with lower-case names, and always a request id, which marks a response of S3."""
    return {"x-amz-request-id": "", **{name.lower(): value for name, value in answer.headers.items()}}


def _named_region(answer: HTTPResponse, body: bytes) -> str | None:
    header = answer.headers.get("x-amz-bucket-region") or ""
    if _REGION.fullmatch(header):
        return header
    element = _REGION_ELEMENT.search(body)
    return element[1].decode() if element else None


def _start(answer: HTTPResponse) -> bytes:
    """Return the first bytes of an error response; empty if they cannot be read."""
    try:
        body = answer.read(_ERROR_BYTES)
    except (OSError, HTTPException):
        return b""
    if answer.length == 0:
        answer.close()  # so that the connection can be reused
    return body


def _xml(what: str, body: bytes) -> Element:
    from xml.etree import ElementTree as ET  # the store is the operator's

    try:
        return ET.fromstring(body)  # noqa: S314
    except ET.ParseError as error:
        raise Retryable(f"{what}: the response is not valid XML") from error


def _contents(page: Element) -> Iterator[S3Object]:
    encoded = page.findtext("{*}EncodingType") == "url"
    for entry in page:
        if entry.tag.endswith("}Contents"):
            fields = {field.tag.rpartition("}")[2]: field.text or "" for field in entry}
            yield S3Object(unquote_plus(fields["Key"]) if encoded else fields["Key"], int(fields["Size"]))
