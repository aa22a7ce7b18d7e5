"""The one door from text to objects: pydantic specs of models, markets, calibrations and fit files."""

from qsde.spec.base import Spec, checked, parsed
from qsde.spec.models import (
    MODEL_TEMPLATES,
    BatesSpec,
    BlackScholesSpec,
    HestonKouSpec,
    HestonSpec,
    KouSpec,
    MertonSpec,
    ModelSpec,
    model_from,
    spec_of,
    template,
)
from qsde.spec.records import FitRecord, dump_fits, load_fits
from qsde.spec.settings import CalibrationSpec, MarketSpec, PriorSpec

__all__ = [
    "MODEL_TEMPLATES",
    "BatesSpec",
    "BlackScholesSpec",
    "CalibrationSpec",
    "FitRecord",
    "HestonKouSpec",
    "HestonSpec",
    "KouSpec",
    "MarketSpec",
    "MertonSpec",
    "ModelSpec",
    "PriorSpec",
    "Spec",
    "checked",
    "dump_fits",
    "load_fits",
    "model_from",
    "parsed",
    "spec_of",
    "template",
]
