"""The OpenAPI document: bodies are read by the service itself, so their schemas are put in here."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from qsde.spec import GreeksRequest, PriceRequest
from service.errors import ProblemDetail
from service.schemas import ImpliedVolRequest

_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (PriceRequest, GreeksRequest, ImpliedVolRequest, ProblemDetail)


def body(kind: type[BaseModel], examples: dict[str, Any]) -> dict[str, Any]:
    """What an operation says of its body."""
    shown = {name: {"value": value} for name, value in examples.items()}
    content = {"schema": {"$ref": _REF.format(model=kind.__name__)}, "examples": shown}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


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
