"""The one door from text to objects: specs of models, markets, payoffs, engines, calibrations and fit files."""

from qsde.spec.base import Spec, checked, parsed
from qsde.spec.contract import Contract, ContractSpec
from qsde.spec.engine import AutoSpec, EngineSpec, FourierSpec, LeastSquaresSpec, MonteCarloSpec, SimulationSpec
from qsde.spec.greeks import GreeksRequest, GreeksResult, GreeksSpec, GreekValue, PayoffGreeks
from qsde.spec.leveraged import (
    LEVERAGED,
    GridLeverageSpec,
    LeveragedSpec,
    ModelSpec,
    NeuralLeverageSpec,
    NeuralStochasticVolSpec,
    spec_of,
)
from qsde.spec.models import (
    MODEL_TEMPLATES,
    BatesSpec,
    BlackScholesSpec,
    HestonKouSpec,
    HestonSpec,
    KouSpec,
    MertonSpec,
    model_from,
    template,
)
from qsde.spec.multi_asset import MultiAssetSpec, PricingModelSpec, pricing_spec_of
from qsde.spec.payoffs import PAYOFFS, AnyPayoffSpec, PayoffSpec, payoff_from, payoff_spec
from qsde.spec.records import FitRecord, FitSummary, dump_fits, fits_as_data, fits_from_data, load_fits
from qsde.spec.request import FitSource, JobRequest, PriceRequest, PricingJob, choose_fit
from qsde.spec.result import PricedPayoff, PriceResult
from qsde.spec.settings import FELLER_STRENGTH, SIMULATED, CalibrationSpec, MarketSpec, PriorSpec, ReadingSpec
from qsde.spec.underlying import UnderlyingSpec

__all__ = [
    "FELLER_STRENGTH",
    "LEVERAGED",
    "MODEL_TEMPLATES",
    "PAYOFFS",
    "SIMULATED",
    "AnyPayoffSpec",
    "AutoSpec",
    "BatesSpec",
    "BlackScholesSpec",
    "CalibrationSpec",
    "Contract",
    "ContractSpec",
    "EngineSpec",
    "FitRecord",
    "FitSource",
    "FitSummary",
    "FourierSpec",
    "GreekValue",
    "GreeksRequest",
    "GreeksResult",
    "GreeksSpec",
    "GridLeverageSpec",
    "HestonKouSpec",
    "HestonSpec",
    "JobRequest",
    "KouSpec",
    "LeastSquaresSpec",
    "LeveragedSpec",
    "MarketSpec",
    "MertonSpec",
    "ModelSpec",
    "MonteCarloSpec",
    "MultiAssetSpec",
    "NeuralLeverageSpec",
    "NeuralStochasticVolSpec",
    "PayoffGreeks",
    "PayoffSpec",
    "PriceRequest",
    "PriceResult",
    "PricedPayoff",
    "PricingJob",
    "PricingModelSpec",
    "PriorSpec",
    "ReadingSpec",
    "SimulationSpec",
    "Spec",
    "UnderlyingSpec",
    "checked",
    "choose_fit",
    "dump_fits",
    "fits_as_data",
    "fits_from_data",
    "load_fits",
    "model_from",
    "parsed",
    "payoff_from",
    "payoff_spec",
    "pricing_spec_of",
    "spec_of",
    "template",
]
