"""The OpenAPI 3.1 document of this server. Its schemas are those of the models that validate. Pure.

Null stands nowhere in it: a field that has no value is absent from what the server answers, and a client that
sends null for one is understood as if it had left it out.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from poiesis_api.config import ServiceInfo
from poiesis_api.documents import View
from poiesis_api.queries import PAGE_SIZE, PAGE_SIZE_MAX
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


class SecurityScheme(StrEnum):
    """How a client may say who it is, by the names of TES 1.1."""

    BEARER = "BearerAuth"
    BASIC = "BasicAuth"


class Error(BaseModel):
    """Every refusal."""

    error: str = Field(
        description="A sentence that says what is wrong, with the value, and what would do instead"
    )
    field: str | None = Field(
        default=None, description="The field or parameter to blame", examples=["executors[0].image"]
    )


def document(info: ServiceInfo, schemes: Collection[SecurityScheme] = ()) -> dict[str, Any]:
    """OpenAPI 3.1; `schemes`: of which a client has to use one, none if nobody has to say who he is."""
    made: dict[str, Any] = {
        "openapi": OPENAPI_VERSION,
        "info": {"title": info.name, "version": TES_VERSION, "description": _DESCRIPTION},
        "servers": [{"url": BASE}],
        "tags": [{"name": "TaskService", "description": "GA4GH Task Execution Service 1.1"}],
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

* Sizes are GB = 10^9 bytes, times RFC 3339 in UTC, paths absolute and in the container.
* A field that is not listed here is ignored, and null is the same as nothing.
* A refusal is `{"error": "a sentence", "field": "executors[0].image"}`.
"""

_SECURITY_SCHEMES: Mapping[SecurityScheme, dict[str, Any]] = {
    SecurityScheme.BEARER: {"type": "http", "scheme": "bearer", "description": "An OAuth2 access token"},
    SecurityScheme.BASIC: {"type": "http", "scheme": "basic"},
}


# Operations

_IDENTITY = (401, 403, 429)  # who asks is not known, may not, or has asked too often


def _paths() -> dict[str, Any]:
    return {
        "/service-info": {
            "get": _operation(
                "GetServiceInfo",
                "What this server is, and what it supports",
                answer=_ref("tesServiceInfo"),
                refusals=(),
                public=True,
            )
        },
        "/tasks": {
            "get": _operation(
                "ListTasks",
                "Tasks, newest first, page by page",
                parameters=_LIST_PARAMETERS,
                answer=_ref("tesListTasksResponse"),
                refusals=(400, *_IDENTITY, 503),
            ),
            "post": _operation(
                "CreateTask",
                "Submit a task",
                parameters=(_IDEMPOTENCY_KEY,),
                body={"required": True, "content": {"application/json": _TASK}},
                answer=_ref("tesCreateTaskResponse"),
                refusals=(400, *_IDENTITY, 408, 413, 415, 422, 503),
            ),
        },
        "/tasks/{id}": {
            "get": _operation(
                "GetTask",
                "One task",
                parameters=(_ID, {"$ref": "#/components/parameters/view"}),
                answer={"anyOf": [_ref("tesTask"), _ref("tesTaskMinimal")]},
                refusals=(400, *_IDENTITY, 404, 503),
            )
        },
        "/tasks/{id}:cancel": {
            "post": _operation(
                "CancelTask",
                "Cancel a task; one that has ended stays as it is",
                parameters=(_ID,),
                answer=_ref("tesCancelTaskResponse"),
                refusals=(*_IDENTITY, 404, 503),
            )
        },
    }


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
    answer: dict[str, Any],
    refusals: Collection[int],
    parameters: Collection[dict[str, Any]] = (),
    body: dict[str, Any] | None = None,
    public: bool = False,
) -> dict[str, Any]:
    """`refusals`: the statuses to count with; whatever else goes wrong has the same shape."""
    operation: dict[str, Any] = {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["TaskService"],
        "responses": {
            "200": _response("OK", answer),
            **{str(status): _response(HTTPStatus(status).phrase, _ref("error")) for status in refusals},
            "default": _response("Any other refusal", _ref("error")),
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
    "description": "What the create answered",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A create that is sent again with the same key and task makes no second task: it is "
    "answered with the first one's id. With another task it is refused.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}
_VIEW = _query(
    "view",
    {"type": "string", "default": View.MINIMAL.value, "enum": [view.value for view in View]},
    "`MINIMAL`: id and state. `BASIC`: all but `content` of inputs, `system_logs` and the executors' output. "
    "`FULL`: all.",
)
_LIST_PARAMETERS = (
    _query("name_prefix", {"type": "string"}, "Tasks whose name begins so, literally and case by case"),
    _query("state", _ref("tesState"), "Tasks in this state"),
    _query(
        "tag_key",
        _STRINGS,
        "Tasks with this tag. May be repeated: tasks with all of them. The first `tag_key` belongs to the "
        "first `tag_value`, and so on.",
    ),
    _query("tag_value", _STRINGS, "The tag's value; none or an empty one: whatever it is"),
    _query(
        "page_size",
        {
            "type": "integer",
            "format": "int32",
            "minimum": 1,
            "maximum": PAGE_SIZE_MAX,
            "default": PAGE_SIZE,
        },
        "Tasks in one page, at most",
    ),
    _query("page_token", {"type": "string"}, "`next_page_token` of the page before, with the same filters"),
    {"$ref": "#/components/parameters/view"},
)


# Schemas

_MODELS: tuple[type[BaseModel], ...] = (
    TesCancelTaskResponse,
    TesCreateTaskResponse,
    TesListTasksResponse,
    TesServiceInfo,
    TesTask,
    TesTaskMinimal,
    Error,
)


class _WithoutNull(GenerateJsonSchema):
    """What may be None may be absent; nothing is null, and names of fields are not repeated as titles."""

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
    # What the server adds is required of no client.
    task = schemas["tesTask"]
    task["required"] = [
        name for name in task["required"] if not task["properties"][name].get("readOnly", False)
    ]
    return schemas


def _name(model: str) -> str:
    return model[0].lower() + model[1:]


def _renamed(schema: Any) -> Any:
    """By the names of TES 1.1: `tesTask`; without the models' titles."""
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
