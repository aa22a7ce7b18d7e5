"""The one door from text to objects: pydantic specs of models, markets, calibrations and fit files."""

from qsde.spec.base import Spec, checked, parsed
from qsde.spec.contract import Contract, ContractSpec
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
from qsde.spec.settings import FELLER_STRENGTH, CalibrationSpec, MarketSpec, PriorSpec, ReadingSpec

__all__ = [
    "FELLER_STRENGTH",
    "MODEL_TEMPLATES",
    "BatesSpec",
    "BlackScholesSpec",
    "CalibrationSpec",
    "Contract",
    "ContractSpec",
    "FitRecord",
    "HestonKouSpec",
    "HestonSpec",
    "KouSpec",
    "MarketSpec",
    "MertonSpec",
    "ModelSpec",
    "PriorSpec",
    "ReadingSpec",
    "Spec",
    "checked",
    "dump_fits",
    "load_fits",
    "model_from",
    "parsed",
    "spec_of",
    "template",
]
