"""The operations of TES 1.1 at one server: retries, redirects, refusals in our words."""

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

import aiohttp
from yarl import URL

from poiesis_cli.credentials import Credentials
from poiesis_cli.errors import AuthFailed, BadUsage, NotFound, NotTes, Refused, Unreachable
from poiesis_cli.tes import Task, read_task
from poiesis_cli.timing import Timing, next_poll, next_try, retry_after_seconds
from poiesis_cli.web import Answer, NoConnection, printable, send

View = Literal["MINIMAL", "BASIC", "FULL"]
Params = Sequence[tuple[str, str]]

PAGE_SIZE = 256  # TES 1.1: the default
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_KEEP_METHOD = {307, 308}
_SUCCESS = range(200, 300)
_UNAUTHORIZED = 401
_BUSY = 503
_TOO_MANY = 429
_SERVER_ERROR = 500
_KINDS = {_TOO_MANY: "asks to slow down", _BUSY: "is not available"}
_WORD_KEYS = ("message", "error", "detail", "msg", "title")
_WORDS = 500  # characters of a server's own words that are repeated


class Repeat(Enum):
    """When a request may be sent again."""

    ALWAYS = "it changes nothing, or the same the second time"
    UNSEEN = "only if the server has not begun it: no connection, or 503"


class NotNow(Unreachable):
    """429 or 5xx, of the server or of a proxy before it. `retry_after` in seconds."""

    def __init__(self, message: str, advice: str, status: int, retry_after: float | None) -> None:
        super().__init__(message, advice)
        self.status = status
        self.retry_after = retry_after


@dataclass(kw_only=True)
class TesClient:
    """One server. `say` tells the user what takes time; `patience`: seconds that the server may be away."""

    base: URL
    session: aiohttp.ClientSession
    credentials: Credentials
    timing: Timing
    say: Callable[[str], None]
    patience: float

    async def service_info(self) -> Mapping[str, Any]:
        """GET /service-info."""
        return _object(await self._call("GET", "/service-info"))

    async def create(self, document: Mapping[str, Any]) -> str:
        """POST /tasks: the new task's id.

        The key tells a server that knows it that a second try is the same task. Other servers ignore it, so
        there is a second try only where the first cannot have made one.
        """
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        try:
            answer = await self._call(
                "POST", "/tasks", Repeat.UNSEEN, body=json.dumps(document).encode(), headers=headers
            )
        except Unreachable as error:
            if _was_not_begun(error):
                raise
            words = f"{error}; whether there is a task now is not known"
            raise Unreachable(words, "look for it: poiesis list --limit 10") from error
        task_id = _object(answer).get("id")
        if not isinstance(task_id, str) or not task_id:
            raise NotTes(
                "the server has taken the task and does not tell its id", "look for it: poiesis list"
            )
        return task_id

    async def get(self, task_id: str, view: View = "MINIMAL") -> Task:
        """GET /tasks/{id}."""
        params = [("view", view)]
        return read_task(await self._call("GET", _task_path(task_id), params=params, task_id=task_id))

    async def cancel(self, task_id: str) -> None:
        """POST /tasks/{id}:cancel."""
        await self._call("POST", f"{_task_path(task_id)}:cancel", task_id=task_id)

    async def list_tasks(self, filters: Params, limit: int | None = None) -> AsyncIterator[Task]:
        """GET /tasks, page after page; at most `limit`. Raise NotTes if the pages lead in a circle."""
        tokens: set[str] = set()
        count = 0
        size = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit)
        page: Params = []
        while True:
            answer = _object(
                await self._call("GET", "/tasks", params=[*filters, ("page_size", str(size)), *page])
            )
            tasks = answer.get("tasks")
            for document in tasks if isinstance(tasks, list) else []:
                yield read_task(document)
                count += 1
                if count == limit:
                    return
            token = answer.get("next_page_token")
            if not isinstance(token, str) or not token:
                return
            if token in tokens:
                raise NotTes("the server's pages lead in a circle: it gave the same next_page_token twice")
            tokens.add(token)
            page = [("page_token", token)]

    async def watch(self, task_id: str, view: View, longest_poll: float | None = None) -> AsyncIterator[Task]:
        """The task again and again, the last time when it has ended. A server that is away is waited for."""
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
        repeat: Repeat = Repeat.ALWAYS,
        task_id: str | None = None,
        **options: Any,
    ) -> Any:
        """The JSON of a 2xx answer. Raise CliError."""
        url = URL(str(self.base) + path, encoded=True)
        first_failure: float | None = None
        for count in itertools.count():
            try:
                answer = await self._renewing(method, url, **options)
                _raise_if_not_now(self.base, answer)
                return self._result(answer, task_id)
            except Unreachable as failure:
                now = time.monotonic()
                first_failure = now if first_failure is None else first_failure
                delay = self._next_try(failure, repeat, count, now - first_failure)
                if delay is None:
                    raise
                if count == 0:
                    self.say(f"{failure}; trying again for up to {self.patience:.0f} s")
            await asyncio.sleep(delay)
        return None

    def _next_try(self, failure: Unreachable, repeat: Repeat, count: int, spent: float) -> float | None:
        """Seconds until then; None if there is none."""
        if repeat is Repeat.UNSEEN and not _may_be_created_again(failure):
            return None
        retry_after = failure.retry_after if isinstance(failure, NotNow) else None
        return next_try(self.timing, count, spent, self.patience, retry_after)

    async def _renewing(self, method: str, url: URL, **options: Any) -> Answer:
        """A 401 may mean that a token has expired early: then there is a second try with a fresh one."""
        answer = await self._follow(method, url, **options)
        if answer.status == _UNAUTHORIZED and await self.credentials.renew():
            answer = await self._follow(method, url, **options)
        return answer

    async def _follow(self, method: str, url: URL, **options: Any) -> Answer:
        """Redirects stay at this server: elsewhere neither the credentials nor the task may go."""
        headers = dict(options.pop("headers", {}))
        for _ in range(_MAX_REDIRECTS + 1):
            value = await self.credentials.header()
            authorization = {} if value is None else {"Authorization": value}
            answer = await send(self.session, method, url, headers=headers | authorization, **options)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            url = self._target(url, location)
            if method != "GET" and answer.status not in _KEEP_METHOD:
                raise NotTes(
                    f"the server answers {method} with a redirect to {printable(location)}", _other(url)
                )
            options.pop("params", None)  # the new URL has them if it wants them
        raise NotTes(f"{self.base}: more than {_MAX_REDIRECTS} redirects")

    def _target(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location))
            same = target.origin() == self.base.origin()
        except ValueError:
            raise NotTes(f"the server redirects to no URL: {printable(location)[:_WORDS]!r}") from None
        if not same:
            raise NotTes(
                f"the server redirects to another one, {target.origin()}; nothing has been sent there",
                _other(target),
            )
        return target.with_user(None)

    def _result(self, answer: Answer, task_id: str | None) -> Any:
        if answer.status in _SUCCESS:
            return answer.json()
        words = _words(answer)
        match answer.status:
            case 401:
                raise self.credentials.refused()
            case 403:
                raise AuthFailed(f"the server forbids it: {words}", "ask its operators who may do this")
            case 404 if task_id is not None:
                raise NotFound(
                    f"no task {printable(task_id)!r} at {self.base}", "poiesis list shows those there are"
                )
            case 404:
                raise NotFound(
                    f"no TES at {self.base}: {words}",
                    "is the server's URL right? A path that does not end with /v1 gets /ga4gh/tes/v1 added",
                )
            case status:
                raise Refused(f"the server refuses: {words} ({status})")


def _was_not_begun(failure: Unreachable) -> bool:
    """Whether the server cannot have made a task: it saw no request, or said that it takes none now."""
    return isinstance(failure, NoConnection) or (
        isinstance(failure, NotNow) and failure.status in {_BUSY, _TOO_MANY}
    )


def _may_be_created_again(failure: Unreachable) -> bool:
    """Not after 429: a limit of tasks is not waited for, but told."""
    return _was_not_begun(failure) and not (isinstance(failure, NotNow) and failure.status == _TOO_MANY)


def _task_path(task_id: str) -> str:
    if task_id in {"", ".", ".."}:
        raise BadUsage(f"not a task's id: {task_id!r}")
    return f"/tasks/{quote(task_id, safe='')}"


def _object(answer: Any) -> Mapping[str, Any]:
    if not isinstance(answer, dict):
        raise NotTes(f"the server should answer with a JSON object, not {type(answer).__name__}")
    return answer


def _raise_if_not_now(base: URL, answer: Answer) -> None:
    if answer.status != _TOO_MANY and answer.status < _SERVER_ERROR:
        return
    asked = retry_after_seconds(answer.headers.get("Retry-After"), datetime.now(UTC))
    later = "try again later" if asked is None else f"it asks to come back in {asked:.0f} s"
    kind = _KINDS.get(answer.status, "has failed")
    raise NotNow(f"{base} {kind}: {answer.status} {_words(answer)}", later, answer.status, asked)


def _words(answer: Answer) -> str:
    """What a server says of its refusal: there is no common shape, so the usual keys are tried."""
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        said = next(
            (document[k] for k in ("message", "error", "detail", "msg", "title") if document.get(k)), ""
        )
        where = document.get("field")
        text = said if isinstance(said, str) else json.dumps(said)
        if isinstance(where, str) and where and where not in text:
            text = f"{where}: {text}"
    else:
        text = answer.body[: 4 * _WORDS].decode("utf-8", "replace")
        if "<html" in text.lower():
            text = "a page for browsers"
    return " ".join(printable(text.replace("\n", " ")).split())[:_WORDS] or "without a word"


def _other(target: URL) -> str:
    return f"if that is where your TES server is: --server {target.origin()}"
