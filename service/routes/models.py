"""`GET /v1/models` and `GET /v1/payoffs`: what requests may hold."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import TypeAdapter

from qsde.models.base import stated
from qsde.spec import MODEL_TEMPLATES, PAYOFFS, AnyPayoffSpec, MultiAssetSpec, spec_of
from service.schemas import Models, ModelText, ParameterText, Payoffs, PayoffText
from service.submission import json

router = APIRouter(tags=["what there is"])


@router.get("/v1/models", response_model=Models, summary="Models, their parameters and domains")
async def models() -> Response:
    """What goes into the field `model` of a request."""
    return json(_models())


@router.get("/v1/payoffs", response_model=Payoffs, summary="Payoffs and their fields")
async def payoffs() -> Response:
    """What goes into the list `payoffs` of a request."""
    return json(_payoffs())


@cache
def _models() -> Models:
    return Models(models=[*(_model(name) for name in MODEL_TEMPLATES), _several()])


def _model(name: str) -> ModelText:
    model = MODEL_TEMPLATES[name]()
    spec = spec_of(model)
    parameters = [
        ParameterText(name=key, text=p.text, domain=stated(p.domain), typical=p.typical)
        for key, p in model.table.items()
    ]
    return ModelText(
        name=name,
        exact_prices=model.has_cf,
        parameters=parameters,
        request=spec.model_dump(),
        json_schema=type(spec).model_json_schema(),
    )


def _several() -> ModelText:
    """Several underlyings: their own models and the correlation."""
    one = spec_of(MODEL_TEMPLATES["black_scholes"]())
    both = MultiAssetSpec.model_validate({"models": [one, one], "correlation": [[1.0, 0.5], [0.5, 1.0]]})
    return ModelText(
        name="multi_asset",
        exact_prices=False,
        parameters=[],
        request=both.model_dump(mode="json"),
        json_schema=MultiAssetSpec.model_json_schema(),
    )


@cache
def _payoffs() -> Payoffs:
    schema = TypeAdapter(AnyPayoffSpec).json_schema()
    return Payoffs(payoffs=[_payoff(name, schema) for name in PAYOFFS])


def _payoff(name: str, schema: dict[str, Any]) -> PayoffText:
    definitions = schema["$defs"]
    key = schema["discriminator"]["mapping"][name].rpartition("/")[2]
    own = {**definitions[key], "$defs": _needed(definitions[key], definitions)}
    text = (inspect.getdoc(PAYOFFS[name]) or "").partition("\n")[0]
    return PayoffText(name=name, text=text, json_schema=own)


def _needed(schema: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that a schema refers to, directly or not."""
    found: dict[str, Any] = {}
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            key = str(part.get("$ref", "")).rpartition("/")[2]
            if key in definitions and key not in found:
                found[key] = definitions[key]
                left.append(definitions[key])
            left += part.values()
        elif isinstance(part, list):
            left += part
    return found
