"""The operations of TES 1.1 on one server: retries, redirects, errors."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import aiohttp
from yarl import URL

from poiesis_cli.address import usage_url
from poiesis_cli.credentials import Credentials
from poiesis_cli.errors import AuthFailed, BadUsage, NotFound, NotTes, Rejected, Unreachable
from poiesis_cli.tes import Task, read_task
from poiesis_cli.timing import Timing, next_poll, next_retry, retry_after_seconds
from poiesis_cli.web import NoConnection, Response, printable, send

View = Literal["MINIMAL", "BASIC", "FULL"]
Params = Sequence[tuple[str, str]]
_T = TypeVar("_T")

LARGE_PAGE_SIZE = 2000  # TES 1.1: fewer than 2048
SHORT_ID_CHARACTERS = 4  # at least
_UUID_CHARACTERS = 36  # a full id of Poiesis and others
_SHORT_ID_TASKS = 10_000  # the newest ones are searched
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_KEEP_METHOD = {307, 308}
_SUCCESS = range(200, 300)
_UNAUTHORIZED = 401
_UNAVAILABLE = 503
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_MESSAGE_KEYS = ("message", "error", "detail", "msg", "title")
_MESSAGE_CHARACTERS = 500


class Retry(Enum):
    """When a request may be repeated."""

    ALWAYS = "it changes nothing, or has the same effect the second time"
    NOT_STARTED = "only if the server has not started it: no connection, or 503"


class TemporaryFailure(Unreachable):
    """429 or 5xx, from the server or a proxy in front of it. `retry_after` in seconds."""

    def __init__(self, message: str, advice: str, status: int, retry_after: float | None) -> None:
        super().__init__(message, advice)
        self.status = status
        self.retry_after = retry_after


@dataclass(kw_only=True)
class TesClient:
    """A client of one server. `notify` reports delays to the user; `retry_for`: seconds."""

    base: URL
    session: aiohttp.ClientSession
    credentials: Credentials
    timing: Timing
    notify: Callable[[str], None]
    retry_for: float

    async def service_info(self) -> Mapping[str, Any]:
        """GET /service-info."""
        return _object(await self._call("GET", "/service-info"))

    async def create(self, document: Mapping[str, Any]) -> str:
        """POST /tasks; return the new task's id.

        A server that supports Idempotency-Key creates one task for both tries. Other servers ignore the key,
        so the request is repeated only if the first try cannot have created a task.
        """
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        try:
            response = await self._call(
                "POST", "/tasks", Retry.NOT_STARTED, body=json.dumps(document).encode(), headers=headers
            )
        except Unreachable as error:
            if _not_started(error):
                raise
            raise Unreachable(
                f"{error}; the task may or may not have been created", "look for it: poiesis list --limit 10"
            ) from error
        task_id = _object(response).get("id")
        if not isinstance(task_id, str) or not task_id:
            raise NotTes("the server accepted the task but returned no id", "look for it: poiesis list")
        return task_id

    async def get(self, task_id: str, view: View = "MINIMAL") -> Task:
        """GET /tasks/{id}."""
        params = [("view", view)]
        return read_task(await self._call("GET", _task_path(task_id), params=params, task_id=task_id))

    async def cancel(self, task_id: str) -> None:
        """POST /tasks/{id}:cancel."""
        await self._call("POST", f"{_task_path(task_id)}:cancel", task_id=task_id)

    async def usage(self, params: Params) -> Response:
        """GET /poiesis/v1/usage, which only Poiesis has."""
        try:
            return await self._respond("GET", usage_url(self.base), params=params)
        except NotFound as error:
            raise NotFound(
                f"no reports of usage at {self.base}", "the server must be a Poiesis with this operation"
            ) from error

    async def with_full_id(self, task_id: str, operation: Callable[[str], Awaitable[_T]]) -> _T:
        """Run an operation on a task given by its id or, at least 4 characters, the start of its id."""
        try:
            return await operation(task_id)
        except NotFound:
            if not SHORT_ID_CHARACTERS <= len(task_id) < _UUID_CHARACTERS:
                raise
            full = await self._find_id(task_id)
            if full is None or full == task_id:
                raise
            return await operation(full)

    async def _find_id(self, start: str) -> str | None:
        """Return the id that starts with `start`, if there is one among the newest tasks.

        Raise BadUsage if there are several.
        """
        tasks = self.list_tasks([("view", "MINIMAL")], _SHORT_ID_TASKS)
        found = [task.id async for task in tasks if task.id.startswith(start)]
        if len(found) > 1:
            raise BadUsage(
                f"{start!r} is the start of several task ids", f"for example {', '.join(found[:3])}"
            )
        return found[0] if found else None

    async def list_tasks(self, filters: Params, limit: int | None = None) -> AsyncIterator[Task]:
        """GET /tasks, page by page, at most `limit` tasks. Raise NotTes if a page token repeats."""
        tokens: set[str] = set()
        count = 0
        size = LARGE_PAGE_SIZE if limit is None else min(LARGE_PAGE_SIZE, limit)
        page: Params = []
        while True:
            response = _object(
                await self._call("GET", "/tasks", params=[*filters, ("page_size", str(size)), *page])
            )
            tasks = response.get("tasks")
            for document in tasks if isinstance(tasks, list) else []:
                yield read_task(document)
                count += 1
                if count == limit:
                    return
            token = response.get("next_page_token")
            if not isinstance(token, str) or not token:
                return
            if token in tokens:
                raise NotTes("the server returned the same next_page_token twice")
            tokens.add(token)
            page = [("page_token", token)]

    async def watch(self, task_id: str, view: View, longest_poll: float | None = None) -> AsyncIterator[Task]:
        """Poll the task; the last one that is yielded has ended. Failed requests are retried."""
        start = time.monotonic()
        while True:
            task = await self.get(task_id, view)
            yield task
            if task.ended:
                return
            delay = next_poll(self.timing, time.monotonic() - start)
            await asyncio.sleep(delay if longest_poll is None else min(delay, longest_poll))

    async def _call(
        self,
        method: str,
        path: str,
        retry: Retry = Retry.ALWAYS,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """Return the JSON of a 2xx response of the TES API. Raise CliError."""
        url = URL(str(self.base) + path, encoded=True)
        return (await self._respond(method, url, retry, task_id, **options)).json()

    async def _respond(
        self,
        method: str,
        url: URL,
        retry: Retry = Retry.ALWAYS,
        task_id: str | None = None,
        **options: Any,
    ) -> Response:
        """Return a 2xx response. Raise CliError."""
        first_failure: float | None = None
        count = 0
        while True:
            try:
                response = await self._with_renewal(method, url, **options)
                _raise_if_temporary(self.base, response)
                return self._accepted(response, task_id)
            except Unreachable as failure:
                now = time.monotonic()
                first_failure = now if first_failure is None else first_failure
                delay = self._retry_delay(failure, retry, count, now - first_failure)
                if delay is None:
                    raise
                if count == 0:
                    self.notify(f"{failure}; retrying for up to {self.retry_for:.0f} s")
            count += 1
            await asyncio.sleep(delay)

    def _retry_delay(self, failure: Unreachable, retry: Retry, count: int, elapsed: float) -> float | None:
        """Return the seconds until the next try; None to give up."""
        if retry is Retry.NOT_STARTED and not _may_create_again(failure):
            return None
        retry_after = failure.retry_after if isinstance(failure, TemporaryFailure) else None
        return next_retry(self.timing, count, elapsed, self.retry_for, retry_after)

    async def _with_renewal(self, method: str, url: URL, **options: Any) -> Response:
        """Send the request again with renewed credentials after a 401: a token may expire early."""
        response = await self._follow(method, url, **options)
        if response.status == _UNAUTHORIZED and await self.credentials.renew():
            response = await self._follow(method, url, **options)
        return response

    async def _follow(self, method: str, url: URL, **options: Any) -> Response:
        """Follow redirects within this server: another one must get neither credentials nor the task."""
        headers = dict(options.pop("headers", {}))
        for _ in range(_MAX_REDIRECTS + 1):
            value = await self.credentials.header()
            authorization = {} if value is None else {"Authorization": value}
            response = await send(self.session, method, url, headers=headers | authorization, **options)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response
            url = self._target(url, location)
            if method != "GET" and response.status not in _KEEP_METHOD:
                raise NotTes(
                    f"the server redirects {method} to {printable(location)} ({response.status})",
                    _use_server(url),
                )
            options.pop("params", None)  # the new URL includes them if it needs them
        raise NotTes(f"{self.base}: more than {_MAX_REDIRECTS} redirects")

    def _target(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location))
            same = target.origin() == self.base.origin()
        except ValueError:
            shown = printable(location)[:_MESSAGE_CHARACTERS]
            raise NotTes(f"the server redirects to an invalid URL: {shown!r}") from None
        if not same:
            raise NotTes(
                f"the server redirects to another server, {target.origin()}; nothing was sent there",
                _use_server(target),
            )
        return target.with_user(None)

    def _accepted(self, response: Response, task_id: str | None) -> Response:
        """Return a 2xx response. Raise CliError."""
        if response.status in _SUCCESS:
            return response
        reason = _server_message(response)
        match response.status:
            case 401:
                raise self.credentials.rejected(reason)
            case 403:
                raise AuthFailed(
                    f"the server denied access: {reason}", "ask the server's operators for access"
                )
            case 404 if task_id is not None:
                raise NotFound(f"no such task: {printable(task_id)!r} at {self.base}", "see poiesis list")
            case 404:
                raise NotFound(
                    f"no TES API at {self.base}: {reason}",
                    "check the URL; /ga4gh/tes/v1 is added to a path that does not end with /v1",
                )
            case status:
                raise Rejected(f"the server rejected the request: {reason} ({status})")


def _not_started(failure: Unreachable) -> bool:
    """Return whether the server cannot have created a task: no connection, 503 or 429."""
    return isinstance(failure, NoConnection) or (
        isinstance(failure, TemporaryFailure) and failure.status in {_UNAVAILABLE, _TOO_MANY_REQUESTS}
    )


def _may_create_again(failure: Unreachable) -> bool:
    """Return whether to retry a create. After 429 it fails at once: the user should see a task limit."""
    limited = isinstance(failure, TemporaryFailure) and failure.status == _TOO_MANY_REQUESTS
    return _not_started(failure) and not limited


def _task_path(task_id: str) -> str:
    if task_id in {"", ".", ".."}:
        raise BadUsage(f"invalid task id: {task_id!r}")
    return f"/tasks/{quote(task_id, safe='')}"


def _object(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        raise NotTes(f"the response must be a JSON object, got {type(document).__name__}")
    return document


def _raise_if_temporary(base: URL, response: Response) -> None:
    if response.status != _TOO_MANY_REQUESTS and response.status < _SERVER_ERROR:
        return
    retry_after = retry_after_seconds(response.headers.get("Retry-After"), datetime.now(UTC))
    advice = "try again later" if retry_after is None else f"try again in {retry_after:.0f} s"
    raise TemporaryFailure(
        f"{base} returned {response.status}: {_server_message(response)}",
        advice,
        response.status,
        retry_after,
    )


def _server_message(response: Response) -> str:
    """Return the server's error message. There is no common format, so the usual keys are tried."""
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        value = next((document[key] for key in _MESSAGE_KEYS if document.get(key)), "")
        field = document.get("field")
        text = value if isinstance(value, str) else json.dumps(value)
        if isinstance(field, str) and field and field not in text:
            text = f"{field}: {text}"
    else:
        text = response.body[: 4 * _MESSAGE_CHARACTERS].decode("utf-8", "replace")
        if "<html" in text.lower():
            text = "an HTML page"
    return " ".join(printable(text.replace("\n", " ")).split())[:_MESSAGE_CHARACTERS] or "no message"


def _use_server(target: URL) -> str:
    return f"if that is your TES server: --server {target.origin()}"
