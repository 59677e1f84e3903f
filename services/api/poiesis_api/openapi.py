"""The OpenAPI 3.1 document of this server, with the schemas of the validating models. Pure.

It does not mention null: responses omit fields without a value, and a null in a request is the same as an
absent field.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from poiesis_api.config import ServiceInfo
from poiesis_api.queries import PAGE_SIZE, PAGE_SIZE_MAX
from poiesis_api.usage import DEFAULT_DAYS, MAX_DAYS, Format, GroupBy, UsageReport
from poiesis_documents.documents import View
from poiesis_models.tes import (
    TesCancelTaskResponse,
    TesCreateTaskResponse,
    TesListTasksResponse,
    TesServiceInfo,
    TesTask,
    TesTaskMinimal,
)

OPENAPI_VERSION = "3.1.0"
TES_VERSION = "1.1.0"
BASE = "/ga4gh/tes/v1"
USAGE_PATH = "/poiesis/v1/usage"


class SecurityScheme(StrEnum):
    """The authentication schemes, by their names in TES 1.1."""

    BEARER = "BearerAuth"
    BASIC = "BasicAuth"


class Error(BaseModel):
    """The body of every error response."""

    error: str = Field(description="What is wrong, with the value, and the limit or the accepted values")
    field: str | None = Field(
        default=None, description="The field or parameter at fault", examples=["executors[0].image"]
    )


def document(info: ServiceInfo, schemes: Collection[SecurityScheme] = ()) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document. `schemes`: accepted authentication schemes; may be empty."""
    made: dict[str, Any] = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": info.name, "version": TES_VERSION, "description": _DESCRIPTION},
        "servers": [{"url": BASE}],
        "tags": [
            {"name": "TaskService", "description": "GA4GH Task Execution Service 1.1"},
            {"name": "Poiesis", "description": "Operations that TES does not have"},
        ],
        "paths": _paths(),
        "components": {"schemas": _schemas(), "parameters": {"view": _VIEW}},
    }
    if schemes:
        made["security"] = [{scheme.value: []} for scheme in SecurityScheme if scheme in schemes]
        made["components"]["securitySchemes"] = {
            scheme.value: _SECURITY_SCHEMES[scheme] for scheme in SecurityScheme if scheme in schemes
        }
    return made


_DESCRIPTION = """\
Runs each task as one Kubernetes Pod.

* Sizes are in GB (10^9 bytes), times in RFC 3339 (UTC). Paths are absolute paths in the container.
* Fields that are not listed here are ignored. A null is the same as an absent field.
* Errors have the form `{"error": "message", "field": "executors[0].image"}`.
"""

_SECURITY_SCHEMES: Mapping[SecurityScheme, dict[str, Any]] = {
    SecurityScheme.BEARER: {"type": "http", "scheme": "bearer", "description": "An OAuth2 access token"},
    SecurityScheme.BASIC: {"type": "http", "scheme": "basic"},
}


# Operations

_IDENTITY = (401, 403, 429)  # not authenticated, not allowed, too many requests


def _paths() -> dict[str, Any]:
    return {
        "/service-info": {
            "get": _operation(
                "GetServiceInfo",
                "Description of this server and of the features it supports",
                response=_ref("tesServiceInfo"),
                errors=(),
                public=True,
            )
        },
        "/tasks": {
            "get": _operation(
                "ListTasks",
                "List tasks, newest first, in pages",
                parameters=_LIST_PARAMETERS,
                response=_ref("tesListTasksResponse"),
                errors=(400, *_IDENTITY, 503),
            ),
            "post": _operation(
                "CreateTask",
                "Submit a task",
                parameters=(_IDEMPOTENCY_KEY,),
                body={"required": True, "content": {"application/json": _TASK}},
                response=_ref("tesCreateTaskResponse"),
                errors=(400, *_IDENTITY, 408, 413, 415, 422, 503),
            ),
        },
        "/tasks/{id}": {
            "get": _operation(
                "GetTask",
                "Get a task",
                parameters=(_ID, {"$ref": "#/components/parameters/view"}),
                response={"anyOf": [_ref("tesTask"), _ref("tesTaskMinimal")]},
                errors=(400, *_IDENTITY, 404, 503),
            )
        },
        "/tasks/{id}:cancel": {
            "post": _operation(
                "CancelTask",
                "Cancel a task; a task that has ended is not changed",
                parameters=(_ID,),
                response=_ref("tesCancelTaskResponse"),
                errors=(*_IDENTITY, 404, 503),
            )
        },
        USAGE_PATH: {"get": _usage()},
    }


def _usage() -> dict[str, Any]:
    operation = _operation(
        "GetUsage",
        "Usage of the tasks that have ended: of the caller's own; for administrators, of all",
        parameters=_USAGE_PARAMETERS,
        response=_ref("usageReport"),
        errors=(400, *_IDENTITY, 503),
    )
    operation["responses"]["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}
    return {**operation, "servers": [{"url": "/"}], "tags": ["Poiesis"]}


_TASK = {
    "schema": {"$ref": "#/components/schemas/tesTask"},
    "examples": {
        "hello": {
            "summary": "The smallest task",
            "value": {"executors": [{"image": "busybox", "command": ["echo", "hello"]}]},
        },
        "checksum": {
            "summary": "An input, an output, resources",
            "value": {
                "name": "checksum",
                "inputs": [{"url": "s3://bucket/reads.fq", "path": "/data/reads.fq"}],
                "outputs": [{"path": "/data/sum.txt", "url": "s3://bucket/sum.txt"}],
                "resources": {"cpu_cores": 1, "ram_gb": 0.5, "disk_gb": 10},
                "executors": [
                    {
                        "image": "busybox",
                        "command": ["md5sum", "/data/reads.fq"],
                        "stdout": "/data/sum.txt",
                    }
                ],
                "tags": {"project": "demo"},
            },
        },
    },
}


def _operation(
    operation_id: str,
    summary: str,
    *,
    response: dict[str, Any],
    errors: Collection[int],
    parameters: Collection[dict[str, Any]] = (),
    body: dict[str, Any] | None = None,
    public: bool = False,
) -> dict[str, Any]:
    """Return an operation. `errors`: expected statuses; any other error has the same body."""
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["TaskService"],
        "responses": {
            "200": _response("OK", response),
            **{str(status): _response(HTTPStatus(status).phrase, _ref("error")) for status in errors},
            "default": _response("Any other error", _ref("error")),
        },
    }
    if public:
        operation["security"] = []
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_STRINGS = {"type": "array", "items": {"type": "string"}}
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The id returned by CreateTask",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes CreateTask safe to repeat: a second request with the same key and task returns the "
    "id of the first task. The same key with a different task is an error.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}
_VIEW = _query(
    "view",
    {"type": "string", "default": View.MINIMAL.value, "enum": [view.value for view in View]},
    "`MINIMAL`: id and state. `BASIC`: all fields except `content` of inputs, `system_logs`, and `stdout` "
    "and `stderr` of executors. `FULL`: all fields.",
)
_LIST_PARAMETERS = (
    _query(
        "name_prefix", {"type": "string"}, "Tasks whose name starts with this text (literal, case-sensitive)"
    ),
    _query("state", _ref("tesState"), "Tasks in this state"),
    _query(
        "tag_key",
        _STRINGS,
        "Tasks with this tag. If repeated, tasks must have all of the tags. The first `tag_value` belongs to "
        "the first `tag_key`, and so on.",
    ),
    _query("tag_value", _STRINGS, "Value of the tag; if omitted or empty, any value matches"),
    _query(
        "page_size",
        {
            "type": "integer",
            "format": "int32",
            "minimum": 1,
            "maximum": PAGE_SIZE_MAX,
            "default": PAGE_SIZE,
        },
        "Maximum number of tasks in a page",
    ),
    _query(
        "page_token",
        {"type": "string"},
        "`next_page_token` of the previous page, requested with the same filters",
    ),
    {"$ref": "#/components/parameters/view"},
)

_DATE = {"type": "string", "format": "date"}
_USAGE_PARAMETERS = (
    _query("since", _DATE, f"First day of the period (UTC); default: {DEFAULT_DAYS} days before `until`"),
    _query(
        "until", _DATE, f"Day after the last one, at most {MAX_DAYS} days after `since`; default: tomorrow"
    ),
    _query(
        "group_by",
        {"type": "array", "items": {"type": "string", "enum": [one.value for one in GroupBy]}},
        "A row for each value; may be repeated. Without it, the report has one row",
    ),
    _query("tag_key", {"type": "string"}, "The tag of `group_by=tag`"),
    _query(
        "format",
        {"type": "string", "default": Format.JSON.value, "enum": [one.value for one in Format]},
        "`csv`: the rows as text/csv, with a header",
    ),
)


# Schemas

_MODELS: tuple[type[BaseModel], ...] = (
    TesCancelTaskResponse,
    TesCreateTaskResponse,
    TesListTasksResponse,
    TesServiceInfo,
    TesTask,
    TesTaskMinimal,
    UsageReport,
    Error,
)


class _WithoutNull(GenerateJsonSchema):
    """Generates schemas without null (optional fields may be absent) and without titles of fields."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if key != "default" or value is not None}

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def _schemas() -> dict[str, Any]:
    _, defined = models_json_schema(
        [(model, "validation") for model in _MODELS],
        ref_template="#/components/schemas/{model}",
        schema_generator=_WithoutNull,
    )
    schemas = {_name(name): _renamed(schema) for name, schema in sorted(defined["$defs"].items())}
    # Clients need not send the fields that the server adds.
    task = schemas["tesTask"]
    task["required"] = [
        name for name in task["required"] if not task["properties"][name].get("readOnly", False)
    ]
    return schemas


def _name(model: str) -> str:
    return model[0].lower() + model[1:]


def _renamed(schema: Any) -> Any:
    """Return the schema with the names of TES 1.1 (`tesTask`) and without the models' titles."""
    match schema:
        case {"$ref": str(reference), **rest}:
            head, _, name = reference.rpartition("/")
            return {"$ref": f"{head}/{_name(name)}", **_renamed(rest)}
        case dict():
            return {
                key: _renamed(value)
                for key, value in schema.items()
                if not (key == "title" and isinstance(value, str))
            }
        case list():
            return [_renamed(one) for one in schema]
        case _:
            return schema
