"""S3: botocore signs, lists and controls multipart uploads; aiohttp moves the bytes.

Requests that carry bytes use presigned URLs: an SDK's own body handling costs a multiple of the time, and
its `Expect: 100-continue` on an empty body makes some servers stall.
"""

import asyncio
import re
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import aioboto3
import botocore.exceptions
from aiobotocore.config import AioConfig
from yarl import URL

from poiesis_transfer import pool, web
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import NotFound, Passing, Permanent, TransferError
from poiesis_transfer.files import Landing, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import S3Url, shown

MIB = 1024 * 1024
WHOLE_BYTES = 64 * MIB  # moved by one request; anything longer in parts
READ_PART_BYTES = 32 * MIB
SEND_PART_BYTES = 16 * MIB
MAX_PARTS = 10_000  # S3's limit
PARTS_AT_ONCE = 8
_ABORT_SECONDS = 10.0
_ERROR_BYTES = 8 * 1024
_OK, _PARTIAL = 200, 206

_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,100})</Code>")
_WORDS = {
    "NoSuchBucket": "the bucket does not exist",
    "NoSuchKey": "there is no such object",
    "AccessDenied": "access denied: the service's credentials do not allow it",
    "AllAccessDisabled": "access denied: the service's credentials do not allow it",
    "InvalidAccessKeyId": "the storage does not know the service's access key",
    "SignatureDoesNotMatch": "the storage does not accept the service's secret key",
    "ExpiredToken": "the service's session token has expired",
    "InvalidToken": "the storage does not accept the service's session token",
    "RequestTimeTooSkewed": "the clocks of this node and of the storage differ too much",
    "PermanentRedirect": "the bucket is in another region than the service is configured for",
    "AuthorizationHeaderMalformed": "the bucket is in another region than the service is configured for",
    "AuthorizationQueryParametersError": "the bucket is in another region than the service is configured for",
    "KeyTooLongError": "the key is longer than 1024 bytes",
    "PreconditionFailed": "the object changed while it was read",
    "InvalidObjectState": "the object is archived and has to be restored first",
    "SlowDown": "the storage asks to come back later",
    "XMinioStorageFull": "the storage is full",
}
_PASSING_CODES = {
    "RequestTimeout",
    "NoSuchUpload",
    "OperationAborted",
    "IncompleteBody",
    "PreconditionFailed",
}
_WORDLESS_CODES = {"", "400", "401", "403", "404"}  # botocore's names for answers without a body
_FORBIDDEN = 403


@dataclass(frozen=True)
class S3Object:
    """One line of a listing."""

    key: str
    size: int


@dataclass(frozen=True)
class _Found:
    size: int
    etag: str


class S3Store:
    """One S3 service, by its endpoint."""

    def __init__(self, client: Any, bytes_by: web.Web, where: str, tls: ssl.SSLContext | bool) -> None:
        self._client = client
        self._web = bytes_by
        self._where = where
        self._tls = tls

    @classmethod
    @asynccontextmanager
    async def open(cls, config: S3Config, bytes_by: web.Web) -> AsyncIterator[Self]:
        """Nothing is sent before the first transfer."""
        try:
            tls = ssl.create_default_context(cafile=config.ca_bundle) if config.ca_bundle else True
        except OSError as error:
            raise Permanent(f"AWS_CA_BUNDLE: {config.ca_bundle} holds no certificates") from error
        session = aioboto3.Session(
            region_name=config.region,
            aws_access_key_id=config.access_key_id,
            aws_secret_access_key=config.secret_access_key,
            aws_session_token=config.session_token,
        )
        async with session.client(
            "s3", endpoint_url=config.endpoint_url, verify=config.ca_bundle, config=_client_config(config)
        ) as client:
            yield cls(client, bytes_by, shown(config.endpoint_url or "AWS"), tls)

    async def list(self, directory: S3Url) -> AsyncIterator[S3Object]:
        """Everything below a directory, in the order of the keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=directory.bucket, Prefix=directory.prefix
        )
        iterator = aiter(pages)
        while True:
            with self._controlled(f"cannot list {directory}"):
                page = await anext(iterator, None)
            if page is None:
                return
            for entry in page.get("Contents", ()):
                yield S3Object(entry["Key"], entry["Size"])

    async def is_directory(self, url: S3Url) -> bool:
        """Whether there are keys below it."""
        with self._controlled(f"cannot list {url}"):
            page = await self._client.list_objects_v2(Bucket=url.bucket, Prefix=url.prefix, MaxKeys=1)
        return bool(page.get("Contents"))

    async def is_object(self, url: S3Url) -> bool:
        """Whether the key has an object."""
        try:
            with self._controlled(f"cannot read {url}"):
                await self._client.head_object(Bucket=url.bucket, Key=url.key)
        except NotFound:
            return False
        return True

    async def download(self, source: S3Url, landing: Landing) -> None:
        """Read an object into a file: up to 64 MiB by one request, more by ranges of 32 MiB at once."""
        found = await self._web.retry.call(lambda: self._whole(source, landing))
        if found.size > WHOLE_BYTES:
            await pool.for_each(
                pool.as_async(range(0, found.size, READ_PART_BYTES)),
                lambda offset: self._web.retry.call(lambda: self._range(source, landing, found, offset)),
                at_once=PARTS_AT_ONCE,
            )
        await landing.keep(found.size)

    async def upload(self, source: SourceFile, target: S3Url, progress: Progress) -> None:
        """Store a file: up to 64 MiB by one request, more in parts; an upload that fails is aborted."""
        if source.size > WHOLE_BYTES:
            await self._multipart(source, target, progress)
            return
        body = web.Slice(source, 0, source.size, progress, self._web.limits.idle)
        await self._put(_writing(source, target), body, "put_object", Bucket=target.bucket, Key=target.key)

    async def _whole(self, source: S3Url, landing: Landing) -> "_Found":
        """What the object is, and its bytes unless there are too many for one request."""
        await landing.empty()
        what = _reading(source, landing)
        async with self._signed("GET", what, "get_object", Bucket=source.bucket, Key=source.key) as response:
            if response.status != _OK:
                raise await self._answer_error(what, response)
            size = response.content_length
            if size is None:
                raise Passing(f"{what} at {self._where}: the answer does not say how long the object is")
            if size <= WHOLE_BYTES:
                await web.pour(response, landing, what, expected=size)
            return _Found(size, response.headers.get("ETag", ""))

    async def _range(self, source: S3Url, landing: Landing, found: "_Found", offset: int) -> None:
        what = _reading(source, landing)
        count = min(found.size - offset, READ_PART_BYTES)
        headers = {"Range": f"bytes={offset}-{offset + count - 1}"}
        if found.etag:
            headers["If-Match"] = found.etag
        async with self._signed(
            "GET", what, "get_object", headers=headers, Bucket=source.bucket, Key=source.key
        ) as response:
            if response.status != _PARTIAL:
                raise await self._answer_error(what, response)
            await web.pour(response, landing, what, offset=offset, expected=count)

    async def _multipart(self, source: SourceFile, target: S3Url, progress: Progress) -> None:
        what = _writing(source, target)
        place = {"Bucket": target.bucket, "Key": target.key}
        with self._controlled(what):
            upload = {**place, "UploadId": (await self._client.create_multipart_upload(**place))["UploadId"]}
        etags: dict[int, str] = {}
        part_bytes = part_size(source.size)

        async def send(offset: int) -> None:
            number = offset // part_bytes + 1
            count = min(part_bytes, source.size - offset)
            body = web.Slice(source, offset, count, progress, self._web.limits.idle)
            etags[number] = await self._put(what, body, "upload_part", PartNumber=number, **upload)

        try:
            await pool.for_each(pool.as_async(range(0, source.size, part_bytes)), send, at_once=PARTS_AT_ONCE)
            parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
            with self._controlled(what):
                await self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            await self._abort(what, upload)
            raise

    async def _abort(self, what: str, upload: Mapping[str, str]) -> None:
        """Parts of an upload that nobody ends are stored and paid for; what led here is raised, not this."""
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                with self._controlled(what):
                    await self._client.abort_multipart_upload(**upload)
        except (TransferError, TimeoutError) as failure:
            sys.stderr.write(f"an unfinished upload stays: {failure or 'no answer in time'}\n")

    async def _put(self, what: str, body: web.Slice, operation: str, **parameters: Any) -> str:
        """Send one request with bytes, again if need be; the ETag."""
        try:
            return await self._web.retry.call(lambda: self._put_once(what, body, operation, **parameters))
        except BaseException:
            body.take_back()
            raise

    async def _put_once(self, what: str, body: web.Slice, operation: str, **parameters: Any) -> str:
        try:
            async with self._signed("PUT", what, operation, data=body, **parameters) as response:
                if response.status != _OK:
                    raise await self._answer_error(what, response)
                await response.read()
                return str(response.headers.get("ETag", ""))
        except Passing as failure:
            if body.failure is not None:
                raise body.failure from failure
            raise

    @asynccontextmanager
    async def _signed(
        self,
        method: str,
        what: str,
        operation: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: web.Slice | None = None,
        **parameters: Any,
    ) -> AsyncIterator[Any]:
        with self._controlled(what):
            url = await self._client.generate_presigned_url(operation, Params=parameters)
        async with self._web.request(
            method,
            URL(url, encoded=True),
            f"{what} at {self._where}",
            headers=headers,
            data=data,
            ssl=self._tls,
            allow_redirects=False,
        ) as response:
            yield response

    async def _answer_error(self, what: str, response: Any) -> TransferError:
        match = _CODE.search(await response.content.read(_ERROR_BYTES))
        code = match[1].decode() if match else ""
        return answer_error(f"{what} at {self._where}", response.status, code, response.headers)

    @contextmanager
    def _controlled(self, what: str) -> Iterator[None]:
        """botocore's failures become ours."""
        what = f"{what} at {self._where}"
        try:
            yield
        except botocore.exceptions.ClientError as error:
            answer = error.response
            meta = answer.get("ResponseMetadata", {})
            raise answer_error(
                what,
                meta.get("HTTPStatusCode", 0),
                answer.get("Error", {}).get("Code", ""),
                meta.get("HTTPHeaders", {}),
            ) from error
        except botocore.exceptions.BotoCoreError as error:
            raise _sdk_error(what, error) from error


def _reading(source: S3Url, landing: Landing) -> str:
    return f"cannot read {source} (input {landing.path})"


def _writing(source: SourceFile, target: S3Url) -> str:
    return f"cannot write {target} (output {source.path})"


def part_size(size: int) -> int:
    """Bytes of a part of an upload: 16 MiB, or whole MiB more where that would make too many parts."""
    needed = -(-size // MAX_PARTS)
    return max(SEND_PART_BYTES, -(-needed // MIB) * MIB)


def answer_error(what: str, status: int, code: str, headers: Mapping[str, str]) -> TransferError:
    """What S3's answer means for a transfer."""
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
    if code in _PASSING_CODES or isinstance(web.status_error("", status, {}), Passing):
        return Passing(message, retry_after=web.retry_after(headers))
    return NotFound(message) if code in {"NoSuchKey", "NoSuchVersion"} else Permanent(message)


def _client_config(config: S3Config) -> AioConfig:
    return AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": config.addressing_style},
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=15,
        read_timeout=120,
        max_pool_connections=pool.AT_ONCE,
        request_checksum_calculation="when_required",  # not every S3 knows the newer checksums
        response_checksum_validation="when_required",
    )


def _sdk_error(what: str, error: botocore.exceptions.BotoCoreError) -> TransferError:
    names = botocore.exceptions
    if isinstance(error, names.NoCredentialsError | names.PartialCredentialsError):
        return Permanent(
            f"{what}: the service has no S3 credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if isinstance(error, names.SSLError):
        return Permanent(f"{what}: TLS: the server's certificate is not accepted")
    if isinstance(error, names.ParamValidationError):
        return Permanent(f"{what}: the bucket or the key is not one that S3 allows")
    if isinstance(error, names.ConnectTimeoutError | names.ReadTimeoutError):
        return Passing(f"{what}: no answer in time")
    if isinstance(error, names.ConnectionError | names.HTTPClientError):
        return Passing(f"{what}: no connection")
    return Permanent(f"{what}: {type(error).__name__}")
