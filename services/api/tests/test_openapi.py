"""Our document beside TES 1.1: every fact of the specification stands in it, or the deviation is listed here.

A fact is a line: an operation, a response, a parameter, a schema or a property, with its type, format, enum,
default, required flag (`!`) and read-only flag (`ro`). TES_1_1 holds the specification's; where its file lies
beside the project, as ../shared/tes/task_execution_service.openapi.yaml, they are compared with that, too.
"""

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api import openapi
from poiesis_api.app import make_app
from poiesis_api.config import ServiceInfo
from poiesis_api.openapi import SecurityScheme, document
from poiesis_models.states import TesState
from poiesis_models.tes import TesTaskRequest

INDEX = Path(__file__).parents[3] / "docs/development/conformance.md"
SPECIFICATION = Path(__file__).parents[4] / "shared/tes/task_execution_service.openapi.yaml"

TES_1_1 = """
GET /service-info                                  GetServiceInfo BearerAuth|BasicAuth
GET /service-info 200                              tesServiceInfo
GET /tasks                                         ListTasks BearerAuth|BasicAuth
GET /tasks ?name_prefix                            string
GET /tasks ?state                                  tesState
GET /tasks ?tag_key                                [string]
GET /tasks ?tag_value                              [string]
GET /tasks ?page_size                              integer/int32
GET /tasks ?page_token                             string
GET /tasks ?view                                   enum(MINIMAL|BASIC|FULL) =MINIMAL
GET /tasks 200                                     tesListTasksResponse
POST /tasks                                        CreateTask BearerAuth|BasicAuth
POST /tasks body                                   tesTask !
POST /tasks 200                                    tesCreateTaskResponse
GET /tasks/{id}                                    GetTask BearerAuth|BasicAuth
GET /tasks/{id} {id}                               string !
GET /tasks/{id} ?view                              enum(MINIMAL|BASIC|FULL) =MINIMAL
GET /tasks/{id} 200                                tesTask
POST /tasks/{id}:cancel                            CancelTask BearerAuth|BasicAuth
POST /tasks/{id}:cancel {id}                       string !
POST /tasks/{id}:cancel 200                        tesCancelTaskResponse
server                                             /ga4gh/tes/v1
security BearerAuth                                http bearer
security BasicAuth                                 http basic
tesCancelTaskResponse                              object
tesCreateTaskResponse                              object
tesCreateTaskResponse.id                           string !
tesExecutor                                        object
tesExecutor.image                                  string !
tesExecutor.command                                [string] !
tesExecutor.workdir                                string
tesExecutor.stdin                                  string
tesExecutor.stdout                                 string
tesExecutor.stderr                                 string
tesExecutor.env                                    {string}
tesExecutor.ignore_error                           boolean
tesExecutorLog                                     object
tesExecutorLog.start_time                          string
tesExecutorLog.end_time                            string
tesExecutorLog.stdout                              string
tesExecutorLog.stderr                              string
tesExecutorLog.exit_code                           integer/int32 !
tesFileType                                        enum(FILE|DIRECTORY) =FILE
tesInput                                           object
tesInput.name                                      string
tesInput.description                               string
tesInput.url                                       string
tesInput.path                                      string !
tesInput.type                                      tesFileType
tesInput.content                                   string
tesInput.streamable                                boolean
tesListTasksResponse                               object
tesListTasksResponse.tasks                         [tesTask] !
tesListTasksResponse.next_page_token               string
tesOutput                                          object
tesOutput.name                                     string
tesOutput.description                              string
tesOutput.url                                      string !
tesOutput.path                                     string !
tesOutput.path_prefix                              string
tesOutput.type                                     tesFileType
tesOutputFileLog                                   object
tesOutputFileLog.url                               string !
tesOutputFileLog.path                              string !
tesOutputFileLog.size_bytes                        string/int64 !
tesResources                                       object
tesResources.cpu_cores                             integer/int32
tesResources.preemptible                           boolean/boolean
tesResources.ram_gb                                number/double
tesResources.disk_gb                               number/double
tesResources.zones                                 [string]
tesResources.backend_parameters                    {string}
tesResources.backend_parameters_strict             boolean/boolean =False
tesServiceInfo                                     object
tesServiceInfo.id                                  string !
tesServiceInfo.name                                string !
tesServiceInfo.type                                tesServiceType !
tesServiceInfo.description                         string
tesServiceInfo.organization                        object !
tesServiceInfo.organization.name                   string !
tesServiceInfo.organization.url                    string/uri !
tesServiceInfo.contactUrl                          string/uri
tesServiceInfo.documentationUrl                    string/uri
tesServiceInfo.createdAt                           string/date-time
tesServiceInfo.updatedAt                           string/date-time
tesServiceInfo.environment                         string
tesServiceInfo.version                             string !
tesServiceInfo.storage                             [string]
tesServiceInfo.tesResources_backend_parameters     [string]
tesServiceType                                     object
tesServiceType.group                               string !
tesServiceType.artifact                            enum(tes) !
tesServiceType.version                             string !
tesState                                           enum(\
UNKNOWN|QUEUED|INITIALIZING|RUNNING|PAUSED|COMPLETE|EXECUTOR_ERROR|SYSTEM_ERROR|CANCELED|PREEMPTED|CANCELING\
) =UNKNOWN ro
tesTask                                            object
tesTask.id                                         string ro
tesTask.state                                      tesState
tesTask.name                                       string
tesTask.description                                string
tesTask.inputs                                     [tesInput]
tesTask.outputs                                    [tesOutput]
tesTask.resources                                  tesResources
tesTask.executors                                  [tesExecutor] !
tesTask.volumes                                    [string]
tesTask.tags                                       {string}
tesTask.logs                                       [tesTaskLog] ro
tesTask.creation_time                              string ro
tesTaskLog                                         object
tesTaskLog.logs                                    [tesExecutorLog] !
tesTaskLog.metadata                                {string}
tesTaskLog.start_time                              string
tesTaskLog.end_time                                string
tesTaskLog.outputs                                 [tesOutputFileLog] !
tesTaskLog.system_logs                             [string]
"""

# GA4GH service-info 1.0.0, to which the specification refers.
SERVICE_INFO_1_0 = {
    "Service": {
        "type": "object",
        "required": ["id", "name", "type", "organization", "version"],
        "properties": {
            "id": {"type": "string"},
            "name": {"type": "string"},
            "type": {"$ref": "#/components/schemas/ServiceType"},
            "description": {"type": "string"},
            "organization": {
                "type": "object",
                "required": ["name", "url"],
                "properties": {"name": {"type": "string"}, "url": {"type": "string", "format": "uri"}},
            },
            "contactUrl": {"type": "string", "format": "uri"},
            "documentationUrl": {"type": "string", "format": "uri"},
            "createdAt": {"type": "string", "format": "date-time"},
            "updatedAt": {"type": "string", "format": "date-time"},
            "environment": {"type": "string"},
            "version": {"type": "string"},
        },
    },
    "ServiceType": {
        "type": "object",
        "required": ["group", "artifact", "version"],
        "properties": {
            "group": {"type": "string"},
            "artifact": {"type": "string"},
            "version": {"type": "string"},
        },
    },
}

STATES = "|".join(TesState)
PATH = r"pattern=^/$|^(/[^/\u0000]+)+/?$"
TIME = "TES requires RFC 3339 in the description; the format states it for machines"
ABSOLUTE = "TES wants an absolute path; the pattern also refuses empty segments, which mean nothing"
FINITE = "no Pod has room for more, and to check them would take the server's time from others"
NOT_EMPTY = "an empty one can never run"
POSITIVE = "TES bounds nothing; nothing, or less, of a resource cannot be had, and Postgres holds 32 bits"

# fact -> (what our document has, why)
DEVIATIONS: Mapping[str, tuple[str, str]] = {
    "GET /service-info": (
        "GetServiceInfo ",
        "public: it describes the authentication, so it cannot require credentials",
    ),
    "GET /tasks/{id} 200": (
        "tesTask|tesTaskMinimal",
        "TES contradicts itself: MINIMAL has id and state only, yet tesTask requires executors",
    ),
    "tesListTasksResponse.tasks": ("[tesTask|tesTaskMinimal] !", "the same"),
    "GET /tasks ?page_size": (
        "integer/int32 =256 maximum=2047 minimum=1",
        "what TES states in words: less than 2048, 256 by default; a page without tasks leads nowhere",
    ),
    "tesState": (
        f"enum({STATES})",
        "read-only is the field of a task, not the filter of the same type; and no task is without a state",
    ),
    "tesTask.state": ("tesState ro", "read-only stands here instead"),
    "tesFileType": (
        "enum(FILE|DIRECTORY)",
        "what is absent is found out: there is no default that would be used",
    ),
    "tesResources.preemptible": ("boolean", "boolean is no format of OpenAPI"),
    "tesResources.backend_parameters_strict": (
        "boolean",
        "boolean is no format of OpenAPI; what was not sent is not returned, so no default is shown",
    ),
    "tesServiceInfo.organization": ("tesServiceOrganization !", "the same object, with a name"),
    "tesTask.executors": ("[tesExecutor] ! maxItems=1000 minItems=1", f"{NOT_EMPTY}; {FINITE}"),
    "tesTask.inputs": ("[tesInput] maxItems=10000", FINITE),
    "tesTask.outputs": ("[tesOutput] maxItems=10000", FINITE),
    "tesResources.zones": ("[string] maxItems=10000", FINITE),
    "tesResources.backend_parameters": ("{string} maxProperties=10000", FINITE),
    "tesExecutor.image": ("string ! minLength=1", NOT_EMPTY),
    "tesExecutor.command": ("[string] ! minItems=1", NOT_EMPTY),
    "tesExecutor.env": (
        "{string} maxProperties=10000 names.minLength=1",
        "an environment has no variable without a name",
    ),
    "tesTask.tags": ("{string} maxProperties=10000 names.minLength=1", "no filter could name such a tag"),
    "tesOutput.url": ("string ! minLength=1", "nothing could be sent there"),
    "tesResources.cpu_cores": ("integer/int32 exclusiveMinimum=0 maximum=2147483647", POSITIVE),
    "tesResources.ram_gb": ("number/double exclusiveMinimum=0 maximum=1000000000.0", POSITIVE),
    "tesResources.disk_gb": ("number/double maximum=1000000000.0 minimum=0", POSITIVE),
    "tesExecutor.workdir": (f"string {PATH}", ABSOLUTE),
    "tesExecutor.stdin": (f"string {PATH}", ABSOLUTE),
    "tesExecutor.stdout": (f"string {PATH}", ABSOLUTE),
    "tesExecutor.stderr": (f"string {PATH}", ABSOLUTE),
    "tesInput.path": (f"string ! {PATH}", ABSOLUTE),
    "tesOutput.path": (f"string ! {PATH}", ABSOLUTE),
    "tesTask.volumes": (f"[string {PATH}] maxItems=10000", f"{ABSOLUTE}; {FINITE}"),
    "tesTask.creation_time": ("string/date-time ro", TIME),
    "tesTaskLog.start_time": ("string/date-time", TIME),
    "tesTaskLog.end_time": ("string/date-time", TIME),
    "tesExecutorLog.start_time": ("string/date-time", TIME),
    "tesExecutorLog.end_time": ("string/date-time", TIME),
}
ELSEWHERE = {  # fact of the specification -> where our document has the same
    "tesServiceInfo.organization.name": "tesServiceOrganization.name",
    "tesServiceInfo.organization.url": "tesServiceOrganization.url",
}
# pattern of facts that only our document has -> why
ADDITIONS = {
    "* [45]??": "TES defines no refusals",
    "* default": "TES defines no refusals",
    "POST /tasks Idempotency-Key:": "TES has no way to send a create again",
    "error": "the one shape of a refusal",
    "error.*": "the one shape of a refusal",
    "GET /poiesis/v1/usage*": "TES has no accounts",
    "usageReport": "TES has no accounts",
    "usageReport.*": "TES has no accounts",
    "usageRow": "TES has no accounts",
    "usageRow.*": "TES has no accounts",
    "tesTaskMinimal": "a task in the MINIMAL view",
    "tesTaskMinimal.*": "a task in the MINIMAL view",
    "tesServiceOrganization": "organization of service-info, with a name",
}


def lines(text: str) -> dict[str, str]:
    """Of a table: the columns are at least two spaces apart."""
    rows = (line.split("  ", 1) for line in text.strip().splitlines())
    return {name: value.strip() for name, value in rows}


def facts(specification: Mapping[str, Any]) -> dict[str, str]:
    """Return the binding facts of an OpenAPI document."""
    return dict(
        [
            *_operations(specification),
            *(("server", server["url"]) for server in specification["servers"]),
            *(
                (f"security {name}", f"{scheme['type']} {scheme['scheme']}")
                for name, scheme in specification["components"]["securitySchemes"].items()
            ),
            *(
                fact
                for name, schema in specification["components"]["schemas"].items()
                for fact in _schema(name, schema)
            ),
        ]
    )


def _operations(specification: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for path, methods in specification["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            security = operation.get("security", specification["security"])
            yield name, f"{operation['operationId']} {'|'.join(next(iter(one)) for one in security)}"
            for parameter in operation.get("parameters", ()):
                one = _resolved(specification, parameter)
                sign = {"query": "?{}", "path": "{{{}}}", "header": "{}:"}[one["in"]].format(one["name"])
                yield f"{name} {sign}", _kind(one["schema"], required=one.get("required", False))
            if "requestBody" in operation:
                body = operation["requestBody"]
                yield f"{name} body", _kind(_json(body), required=body["required"])
            for status, response in operation["responses"].items():
                yield f"{name} {status}", _kind(_json(response))


def _resolved(specification: Mapping[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in parameter:
        return specification["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return parameter


def _json(content: dict[str, Any]) -> dict[str, Any]:
    return content["content"]["application/json"]["schema"]


def _schema(name: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    whole = _merged(schema)
    yield name, _kind(whole)
    yield from _properties(name, whole)


def _properties(name: str, schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in schema.get("properties", {}).items():
        yield f"{name}.{key}", _kind(value, required=key in schema.get("required", ()))
        yield from _properties(f"{name}.{key}", value)


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    if "allOf" not in schema:
        return schema
    made: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for part in schema["allOf"]:
        one = SERVICE_INFO_1_0[part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        made["properties"] |= one["properties"]
        made["required"] += one.get("required", [])
    return made


BOUNDS = (
    "exclusiveMinimum",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
)


def _kind(schema: dict[str, Any], *, required: bool = False) -> str:
    words = [_type(schema)]
    if required:
        words.append("!")
    if "default" in schema:
        words.append(f"={schema['default']}")
    if schema.get("readOnly"):
        words.append("ro")
    words += [f"{bound}={schema[bound]}" for bound in BOUNDS if bound in schema]
    words += [f"names.{bound}={value}" for bound, value in schema.get("propertyNames", {}).items()]
    return " ".join(words)


def _type(schema: dict[str, Any]) -> str:  # noqa: PLR0911 - a table
    match schema:
        case {"$ref": reference}:
            return reference.rpartition("/")[2]
        case {"anyOf": choices}:
            return "|".join(_kind(choice) for choice in choices)
        case {"enum": values}:
            return f"enum({'|'.join(values)})"
        case {"const": value}:
            return f"enum({value})"
        case {"type": "array", "items": items}:
            return f"[{_kind(items)}]"
        case {"type": "object", "additionalProperties": values}:
            return f"{{{_kind(values)}}}"
        case {"type": kind, "format": form}:
            return f"{kind}/{form}"
        case _:
            return schema["type"]


OURS = facts(document(ServiceInfo(), list(SecurityScheme)))


def test_document_matches_specification_except_listed_deviations():
    expected = lines(TES_1_1)
    for name, (value, _) in DEVIATIONS.items():
        assert expected[name] != value, f"{name} does not deviate"
        expected[name] = value
    for name, elsewhere in ELSEWHERE.items():
        expected[elsewhere] = expected.pop(name)
    added = {
        name: value
        for name, value in OURS.items()
        if name not in expected and any(fnmatchcase(name, pattern) for pattern in ADDITIONS)
    }
    assert expected | added == OURS


def test_every_specification_fact_is_in_test_index():
    rows = [line.split(" | ") for line in INDEX.read_text().splitlines() if line.startswith("| ")]
    named = {name for _, where, _ in rows for name in re.findall(r"`([^`]*)`", where)}
    assert named == set(lines(TES_1_1))


@pytest.mark.parametrize("pattern", ADDITIONS)
def test_every_listed_addition_is_there(pattern):
    assert [name for name in OURS if fnmatchcase(name, pattern) and name not in lines(TES_1_1)]


def test_the_facts_are_those_of_the_specification():
    if not SPECIFICATION.is_file():
        pytest.skip(
            f"COMPARED WITH THE TABLE IN THIS FILE ALONE: the specification is not at {SPECIFICATION}"
        )
    assert facts(yaml.safe_load(SPECIFICATION.read_text())) == lines(TES_1_1)


def test_document_is_valid_openapi():
    made = document(ServiceInfo(), list(SecurityScheme))
    assert (made["openapi"], made["info"]["version"]) == ("3.1.0", "1.1.0")

    def references(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key == "$ref")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(made):
        target = made
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    for schema in made["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_nothing_is_null():
    assert '"null"' not in json.dumps(document(ServiceInfo(), list(SecurityScheme)))


@pytest.mark.parametrize(
    ("schemes", "security", "named"),
    [
        ((), None, None),
        ((SecurityScheme.BASIC,), [{"BasicAuth": []}], {"BasicAuth"}),
        ((SecurityScheme.BEARER,), [{"BearerAuth": []}], {"BearerAuth"}),
        (
            (SecurityScheme.BASIC, SecurityScheme.BEARER),
            [{"BearerAuth": []}, {"BasicAuth": []}],
            {"BearerAuth", "BasicAuth"},
        ),
    ],
)
def test_only_the_security_that_is_on_is_documented(schemes, security, named):
    made = document(ServiceInfo(), schemes)
    assert made.get("security") == security
    assert made["components"].get("securitySchemes", {}).keys() == (named or set())


def test_routes_match_documented_operations(config, make_services):
    app = make_app(make_services(config, pool=None, submitter=None))
    routed = {
        (route.method, route.resource.canonical.removeprefix(openapi.BASE))
        for route in app.router.routes()
        if route.resource.canonical.startswith((openapi.BASE, "/poiesis")) and route.method != "HEAD"
    }
    documented = {
        (method.upper(), path.removesuffix(":cancel"))  # which is part of the id for a router
        for path, methods in document(ServiceInfo())["paths"].items()
        for method in methods
    }
    ours = {
        ("GET", "/openapi.json"),
        ("GET", "/ui"),
        *(
            ("GET", f"/ui/{name}")
            for name in ("swagger-ui-bundle.js", "swagger-ui.css", "page.js", "page.css")
        ),
        ("GET", "/tasks/service-info"),  # TES 0.4
    }
    assert routed == documented | ours


def test_the_examples_of_a_create_are_accepted():
    body = document(ServiceInfo())["paths"]["/tasks"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) >= 2
    for example in body["examples"].values():
        TesTaskRequest.model_validate(example["value"])


async def test_service_info_matches_the_document(config, conformance, make_services):
    app = make_app(make_services(config, pool=None, submitter=None))
    async with TestClient(TestServer(app), middlewares=[conformance]) as client:
        assert (await client.get(f"{openapi.BASE}/service-info")).status == 200


@pytest.mark.parametrize(
    ("path", "answer", "status"),
    [
        ("/service-info", {}, 200),
        ("/tasks", {"tasks": [{"id": "x", "state": "QUEUED", "more": 1}]}, 200),
        ("/tasks", {"tasks": [{"id": "x", "state": "DONE"}]}, 200),
        ("/tasks", {"tasks": []}, 201),
        ("/tasks", {"message": "no"}, 400),
        ("/tasks/x", {"id": "x", "state": "QUEUED", "name": None}, 200),
        (
            "/tasks/x",
            {"id": "x", "executors": [{"image": "i", "command": ["c"]}], "creation_time": "now"},
            200,
        ),
    ],
)
async def test_response_validator_rejects_undocumented_responses(conformance, path, answer, status):
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_get(openapi.BASE + path, handler)
    async with TestClient(TestServer(app), middlewares=[conformance]) as client:
        with pytest.raises((AssertionError, jsonschema.ValidationError)):
            await client.get(openapi.BASE + path)
