"""The server's own description (OpenAPI 3.1): what the routes declare, and what they cannot.

The routes read bodies themselves, so that wrong ones are answered 400 with the one error body; the framework would
describe a 422 that never comes, and no request body.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from server.api.error_schema import ErrorResponse


@dataclass(frozen=True, slots=True)
class Schemas:
    """What a router reads and streams by itself; the framework knows of neither."""

    read: Sequence[type[BaseModel]] = ()
    """Bodies."""
    streamed: Sequence[type[BaseModel]] = ()
    """Events."""


_REFERENCE = "#/components/schemas/{model}"
_ERRORS = {
    400: "The request is malformed, out of range, or brings media that cannot be used.",
    401: "No key, or a wrong one.",
    404: "There is no such model or file.",
    413: "The body is over the limit.",
    429: "Too many requests at the moment; `Retry-After` says when to come back.",
    500: "A fault of the server; its log has the request id.",
    503: "The model is loading or being restarted; `Retry-After` says when to come back.",
    504: "Media took longer than their deadline.",
    507: "The server has no room for the file.",
}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int, body: type[BaseModel] = ErrorResponse) -> Responses:
    """The `responses` of a route that may answer with these errors.

    Args:
        statuses: of the errors.
        body: what they look like.
    """
    return {status: {"model": body, "description": _ERRORS[status]} for status in statuses}


def json_request(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a body of this model by itself."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def form_request(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads a multipart form of this model by itself."""
    schema = {"$ref": _REFERENCE.format(model=model.__name__)}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def query(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads query parameters of this model by itself."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": declared}
            for name, declared in schema["properties"].items()
        ]
    }


def event_stream(model: type[BaseModel]) -> dict[str, Any]:
    """The content of a response that may also come as events of this model."""
    description = f"`data:` lines, each a `{model.__name__}` or an error body; the last one is `[DONE]`."
    return {"text/event-stream": {"schema": {"type": "string", "description": description}}}


def named_events(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """The content of an answer that may also come as events of these models, which have a name and a type."""
    names = ", ".join(f"`{model.__name__}`" for model in models)
    description = f"`event:` and `data:` lines; the data are one of {names}, told apart by `type`."
    return {"text/event-stream": {"schema": {"type": "string", "description": description}}}


def describe(
    app: FastAPI, schemas: Iterable[Schemas], *, needs_key: bool, open_paths: Iterable[str]
) -> Mapping[str, Any]:
    """The document.

    Args:
        app: whose routes to describe.
        schemas: of its routers.
        needs_key: whether keys are configured.
        open_paths: those that need none even so.
    """
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for declared in schemas:
        models += [(model, "validation") for model in declared.read]
        models += [(model, "serialization") for model in declared.streamed]
    _, definitions = models_json_schema(models, ref_template=_REFERENCE)
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    components.update(definitions["$defs"])
    if needs_key:
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"key": []}, {"header": []}]
        for path in open_paths:
            for operation in document["paths"][path].values():
                operation["security"] = []
    return document
