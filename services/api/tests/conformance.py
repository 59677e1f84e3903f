"""Every answer against our own OpenAPI document, with nothing in it that the document does not name."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import jsonschema
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from poiesis_api.openapi import BASE, USAGE_PATH

formats = jsonschema.FormatChecker(formats=())


@formats.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    """RFC 3339, in UTC."""
    return not isinstance(value, str) or (value.endswith("Z") and bool(datetime.fromisoformat(value)))


@formats.checks("int64", raises=ValueError)
def is_int64(value: object) -> bool:
    """In decimal digits."""
    return not isinstance(value, str) or (str(int(value)) == value and abs(int(value)) < 2**63)


@formats.checks("int32")
def is_int32(value: object) -> bool:
    """Of 32 bits."""
    return not isinstance(value, int) or abs(value) < 2**31


@formats.checks("uri", raises=ValueError)
def is_uri(value: object) -> bool:
    """With a scheme."""
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


class Conformance:
    """A middleware of a client that reads every answer and asserts that the document promised it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._paths = document["paths"]
        self._components = sealed(document["components"])

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if request.method == "HEAD":
            return response
        operation = self._operation(request.method, request.url.raw_path)
        if operation is None:
            if response.status >= 400 and response.status != 503:
                self._validate(await response.json(), {"$ref": "#/components/schemas/error"})
            return response
        promised = operation["responses"]
        status = str(response.status)
        assert status in promised, f"{request.method} {request.url}: {status} is not documented"
        if response.content_type == "text/csv" and request.url.raw_path == USAGE_PATH:
            return response
        assert response.content_type == "application/json"
        self._validate(await response.json(), promised[status]["content"]["application/json"]["schema"])
        return response

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        if path == USAGE_PATH:
            return self._paths[path].get(method.lower())
        if not path.startswith(f"{BASE}/"):
            return None
        match path.removeprefix(BASE).replace("%3A", ":").replace("%3a", ":").split("/"):
            case ["", "tasks", "service-info"]:
                return None
            case ["", "tasks", name] if method == "POST" and name.endswith(":cancel"):
                return self._paths["/tasks/{id}:cancel"]["post"]
            case ["", "tasks", name] if name:
                return self._paths["/tasks/{id}"].get(method.lower())
        return self._paths.get(path.removeprefix(BASE), {}).get(method.lower())

    def _validate(self, body: object, schema: Mapping[str, Any]) -> None:
        whole = {**schema, "components": self._components}
        jsonschema.Draft202012Validator(whole, format_checker=formats).validate(body)


def sealed(node: Any) -> Any:
    """With no properties but those that are named: the document itself lets clients send what they like."""
    if isinstance(node, list):
        return [sealed(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: sealed(value) for key, value in node.items()}
    if made.get("type") == "object" and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made
