"""The OpenAPI document: bodies are read by the service itself, so their schemas are put in here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from qsde.spec import GreeksRequest, PriceRequest
from service.errors import ProblemDetail
from service.kept import CalibrationRequest
from service.scenarios import ScenariosRequest
from service.schemas import ImpliedVolRequest

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    PriceRequest, GreeksRequest, ScenariosRequest, ImpliedVolRequest, CalibrationRequest, ProblemDetail,
)  # fmt: skip


def body(kind: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """What an operation says of its body."""
    shown = {name: {"value": value} for name, value in examples.items()}
    content = {"schema": {"$ref": _REF.format(model=kind.__name__)}, "examples": shown}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def upload(options: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """What an operation says of a file, as its body or in a form, and of how to read it."""
    shown = {name: {"value": value} for name, value in examples.items()}
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = {"type": "object", "required": ["file"], "properties": {"file": binary["schema"]}}
    content = {
        "application/json": {"schema": {}, "examples": shown},
        "text/csv": binary,
        "application/vnd.apache.parquet": binary,
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [*_parameters(options), *KEY]}


def _parameters(options: type[BaseModel]) -> list[dict[str, Any]]:
    found = options.model_json_schema(ref_template=_REF)["properties"]
    return [{"name": name, "in": "query", "required": False} | _sent(schema) for name, schema in found.items()]


def _sent(schema: dict[str, Any]) -> dict[str, Any]:
    """How a parameter is sent: as it is, or as JSON where it may be an object; never as null."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    own = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {"content": {"application/json": {"schema": own}}} if "object" in str(kinds) else {"schema": own}


#: The header of operations that create.
KEY: list[dict[str, Any]] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "sent again with the same request, it creates nothing and gets the same answer",
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"},
    }
]


def document(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    found: dict[str, Any] = app.openapi_schema
    return found


def _made(app: FastAPI) -> dict[str, Any]:
    made: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, defined = models_json_schema([(model, "validation") for model in _MODELS], ref_template=_REF)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    made["components"]["schemas"] = {**defined["$defs"], **schemas}
    return made
