"""The operations of TES 1.1 and our own, one function each."""

import asyncio
import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import hdrs, web

from poiesis_api import limits, tasks_db
from poiesis_api.bodies import Incoming
from poiesis_api.config import Document, ServiceInfo
from poiesis_api.connections import Connections
from poiesis_api.errors import (
    InvalidHeader,
    NotAllowed,
    StorageUnavailable,
    TaskNotFound,
    TesError,
    shown,
)
from poiesis_api.grants import config_for, granted_credentials, has_limited_values, parameters_for
from poiesis_api.identity.authenticators import Authenticator
from poiesis_api.identity.caller import ANONYMOUS, Caller
from poiesis_api.limits import RequestRates
from poiesis_api.namespaces import namespace_for
from poiesis_api.object_limits import check_objects, pod_bound
from poiesis_api.outages import WriteHealth
from poiesis_api.pages import large_task, task_page
from poiesis_api.parameters import supported_keys, with_default_gpu
from poiesis_api.pod_bound import PodBound
from poiesis_api.postgres import Pool
from poiesis_api.queries import parse_list_query, parse_view
from poiesis_api.sending import JSON, Outgoing, readers, send
from poiesis_api.submitter import Submitter
from poiesis_api.task_size import check_task_size
from poiesis_api.tasks_db import Cancel, Idempotency, NewTask, TooLarge
from poiesis_api.usage import Format, parse_usage_query, report_csv, usage_report
from poiesis_api.usage_db import read_usage
from poiesis_api.validation import parse_task, sharing_group, validate
from poiesis_models.outages import Outage
from poiesis_models.tes import TesTaskRequest

CANCEL_SUFFIX = ":cancel"
IDEMPOTENCY_KEY = "Idempotency-Key"
PROBE_SECONDS = 1.0
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


@dataclass(kw_only=True)
class Services:
    """What the handlers share. `stopping`: this replica reports that it is not ready."""

    pool: Pool
    submitter: Submitter
    config: Document
    authenticator: Authenticator
    rates: RequestRates
    write_health: WriteHealth = field(default_factory=lambda: WriteHealth(time.monotonic))
    stopping: bool = False

    def __post_init__(self) -> None:
        """Create the budgets of this replica, and measure its Pods."""
        self.pod_bound = pod_bound(self.config)
        self.connections = Connections(self.config.http)
        self.database = DatabaseProbe(self.pool)
        self.incoming = Incoming(self.config.limits)
        self.outgoing = Outgoing(self.config.limits, readers(self.config.database))

    async def identify(self, request: web.Request) -> Caller:
        """Authenticate the caller, and apply its request rate limit. Raise TesError."""
        caller = await self.authenticator.caller(request.headers.getall(hdrs.AUTHORIZATION, []))
        self.rates.take(caller.name, time.monotonic())
        return caller


class DatabaseProbe:
    """The state of Postgres, cached: probes need no credentials and must not cost a statement each."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._at = float("-inf")
        self._last: tasks_db.DatabaseState | None = None
        self._reading = asyncio.Lock()

    async def state(self) -> tasks_db.DatabaseState:
        """Return a state that is at most PROBE_SECONDS old. Raise StorageUnavailable."""
        async with self._reading:
            if time.monotonic() - self._at >= PROBE_SECONDS:
                self._last = None
                try:
                    self._last = await tasks_db.read_state(self._pool)
                finally:
                    self._at = time.monotonic()
            if self._last is None:
                raise StorageUnavailable
            return self._last


SERVICES = web.AppKey("services", Services)


CALLER = web.RequestKey("caller", Caller)
TASK = web.RequestKey("task", UUID)  # of the request, for its log line


async def create_task(request: web.Request) -> web.Response:
    """POST /tasks."""
    services = request.app[SERVICES]
    caller, config = request[CALLER], services.config

    def check(body: bytes) -> _CheckedTask:
        return _checked_task(body, caller, config, services.pod_bound)

    sent, task, warnings, credentials = await services.incoming.parsed(request, config.limits, check)
    new = NewTask(
        owner=caller.name,
        request=task,
        warnings=warnings,
        shared_with=sharing_group(task, caller, config.auth.sharing),
        reserved=limits.reserved_resources(task, config),
        credentials=credentials,
        namespace=namespace_for(caller, config.tasks),
        idempotency=_idempotency(request, sent),
    )
    task_id = await tasks_db.create_task(services.pool, new, config.effective_user_limits)
    request[TASK] = task_id
    services.write_health.wrote()
    services.submitter.wake()
    return web.json_response({"id": str(task_id)})


_CheckedTask = tuple[TesTaskRequest, TesTaskRequest, list[str], list[str]]


def _checked_task(body: bytes, caller: Caller, config: Document, bound: PodBound) -> _CheckedTask:
    """Return the task as sent, as it will run, warnings, and the names of the S3 credentials that it gets.

    Raise MalformedBody, InvalidTask or NotAllowed.
    """
    sent = parse_task(body)
    check_task_size(sent, len(body))
    theirs = config_for(caller, config)
    task, warnings = validate(sent, theirs)
    task = _with_default_gpu(task, theirs, config)
    credentials = granted_credentials(task, caller, config.storage.s3.credentials)
    check_objects(task, credentials, config, bound)
    return sent, task, warnings, credentials


def _with_default_gpu(task: TesTaskRequest, theirs: Document, config: Document) -> TesTaskRequest:
    resources = task.resources
    if resources is None or not resources.backend_parameters:
        return task
    named = with_default_gpu(
        resources.backend_parameters, theirs.backend_parameters, config.backend_parameters
    )
    return task.model_copy(update={"resources": resources.model_copy(update={"backend_parameters": named})})


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """GET /tasks."""
    services, caller = request.app[SERVICES], request[CALLER]
    query = parse_list_query(request.query, caller.name)
    page_bytes = services.config.limits.page_bytes
    async with aclosing(task_page(services.pool, services.outgoing, caller, query, page_bytes)) as parts:
        return await send(request, services.outgoing, parts)


async def get_task(request: web.Request) -> web.StreamResponse:
    """GET /tasks/{id}."""
    services, caller = request.app[SERVICES], request[CALLER]
    name = request.match_info["id"]
    task_id = request[TASK] = _task_id(name)
    view = parse_view(request.query)
    try:
        document = await tasks_db.read_task(services.pool, caller, task_id, view)
    except TooLarge:
        async with aclosing(large_task(services.pool, services.outgoing, caller, task_id, view)) as parts:
            return await send(request, services.outgoing, parts)
    if document is None:
        raise TaskNotFound(name)
    return web.Response(body=document, content_type=JSON)


async def cancel_task(request: web.Request) -> web.Response:
    """POST /tasks/{id}:cancel; the colon may be encoded as %3A. A task that has ended is not changed."""
    services = request.app[SERVICES]
    name, separator, rest = request.match_info["id"].rpartition(CANCEL_SUFFIX)
    if not separator or rest:
        raise web.HTTPNotFound
    task_id = request[TASK] = _task_id(name)
    outcome = await tasks_db.cancel_task(services.pool, request[CALLER], task_id)
    if outcome is Cancel.UNKNOWN:
        raise TaskNotFound(name)
    if outcome is Cancel.NOT_THEIRS:
        raise NotAllowed("task {id} is shared with you, but only its creator can cancel it", id=str(task_id))
    if outcome is Cancel.CANCELING:
        services.submitter.cancel_soon(task_id)
    return web.json_response({})


async def get_usage(request: web.Request) -> web.Response:
    """GET /poiesis/v1/usage."""
    services, caller = request.app[SERVICES], request[CALLER]
    query = parse_usage_query(request.query, datetime.now(UTC).date())
    async with services.outgoing.turn(caller.name):
        found = await read_usage(services.pool, caller, query)
    report = usage_report(query, found, services.config.prices)
    if query.format is Format.CSV:
        return web.Response(text=report_csv(query, report), content_type="text/csv")
    return web.Response(text=report.model_dump_json(exclude_none=True), content_type=JSON)


async def service_info(request: web.Request) -> web.Response:
    """GET /service-info."""
    config = request.app[SERVICES].config
    theirs = parameters_for(await _known_caller(request), config.backend_parameters)
    return web.json_response(service_info_document(config.service_info, supported_keys(theirs)))


async def _known_caller(request: web.Request) -> Caller:
    """Return the caller of a public route, for whom credentials are optional: anonymous without valid ones.

    Credentials are checked only if the response depends on them, so the route needs no issuer otherwise.
    """
    services = request.app[SERVICES]
    depends = has_limited_values(services.config.backend_parameters)
    if not depends or hdrs.AUTHORIZATION not in request.headers:
        return ANONYMOUS
    try:
        return await services.identify(request)
    except TesError:
        return ANONYMOUS


async def short_service_info(request: web.Request) -> web.Response:
    """GET /tasks/service-info, of TES 0.4: Toil starts with it and accepts these three keys only."""
    info = request.app[SERVICES].config.service_info
    return web.json_response(
        {"name": info.name, "doc": info.description or info.name, "storage": info.storage}
    )


async def healthz(_: web.Request) -> web.Response:
    """Report that the process is alive."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """Report whether requests can be answered. Raise StorageUnavailable.

    A full or read-only database, or a queue without progress, is only noted: reads still work, and taking
    this replica out of the Service would not help the others.
    """
    services = request.app[SERVICES]
    if services.stopping:
        return web.json_response({"error": "stopping"}, status=503)
    database = await services.database.state()
    if not database.has_schema:
        return web.json_response({"error": "the database has no schema yet"}, status=503)
    read_only = Outage.READ_ONLY.value if database.read_only else None
    notes = [read_only or services.write_health.note(), services.submitter.note()]
    present = [note for note in notes if note is not None]
    return web.json_response({"status": "ready", "notes": present} if present else {"status": "ready"})


def service_info_document(info: ServiceInfo, backend_parameters: Sequence[str]) -> dict[str, Any]:
    """Return the GA4GH service-info 1.0 document with the fields of TES."""
    optional = {
        "description": info.description,
        "contactUrl": info.contact_url,
        "documentationUrl": info.documentation_url,
        "createdAt": info.created_at,
        "updatedAt": info.updated_at,
        "environment": info.environment,
    }
    return {
        "id": info.id,
        "name": info.name,
        "type": {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"},
        "organization": info.organization.model_dump(),
        "version": info.version,
        "storage": info.storage,
        "tesResources_backend_parameters": backend_parameters,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _idempotency(request: web.Request, task: TesTaskRequest) -> Idempotency | None:
    """Read the header of draft-ietf-httpapi-idempotency-key-header. Raise InvalidHeader."""
    keys = request.headers.getall(IDEMPOTENCY_KEY, [])
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        got = shown(keys[0]) if len(keys) == 1 else f"{len(keys)} values"
        raise InvalidHeader(
            "{field} must be a single value of 1 to 255 printable ASCII characters, got {got}",
            IDEMPOTENCY_KEY,
            got=got,
        )
    digest = hashlib.sha256(task.model_dump_json(exclude_none=True).encode()).digest()
    return Idempotency(key=keys[0], digest=digest)


def _task_id(name: str) -> UUID:
    try:
        task_id = UUID(name)
    except ValueError:
        raise TaskNotFound(name) from None
    if str(task_id) != name:  # TES: the exact string
        raise TaskNotFound(name)
    return task_id
