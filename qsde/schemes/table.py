"""The table of schemes, and the one to take for a model."""

from __future__ import annotations

from dataclasses import dataclass

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.lsv import LocalStochasticVol
from qsde.models.multi_asset import MultiAsset
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.models.sde import SDE
from qsde.schemes.base import Scheme
from qsde.schemes.exact import Exact
from qsde.schemes.heston_near_exact import HestonNearExact
from qsde.schemes.heston_qe import HestonQE
from qsde.schemes.heston_tq import HestonTQ
from qsde.schemes.layers import layers
from qsde.schemes.leverage import Leveraged
from qsde.schemes.leverage_free import FreeVolatility
from qsde.schemes.log_euler import LogEuler
from qsde.schemes.milstein import Milstein
from qsde.schemes.multi_asset import Correlated
from qsde.schemes.sde import (
    SRA1,
    SRID2,
    UBU,
    EulerHeun,
    EulerMaruyama,
    Heun,
    ItoMilstein,
    LogODE,
    Midpoint,
    NinomiyaVictoir,
    PlatenWeak2,
    ReversibleHeun,
    ShARK,
    Strang,
    StratonovichMilstein,
)
from qsde.schemes.with_jumps import WithJumps


@dataclass(frozen=True)
class SchemeRow:
    """One row of the table: what a scheme steps, and its orders in the step size."""

    name: str
    scheme: type[Scheme]
    models: tuple[type[Model], ...]
    weak_order: float
    strong_order: float


def _row(name: str, scheme: type[Scheme], *models: type[Model]) -> SchemeRow:
    return SchemeRow(name, scheme, models, scheme.weak_order, scheme.strong_order)


#: Every scheme by the name that texts use. Jumps are exact, so WithJumps has the orders of its diffusion; Correlated
#: has those of the worst of its schemes.
SCHEMES: dict[str, SchemeRow] = {
    row.name: row
    for row in (
        _row("exact", Exact, BlackScholes),
        _row("log_euler", LogEuler, BlackScholes, Heston),
        _row("milstein", Milstein, Heston),
        _row("heston_qe", HestonQE, Heston),
        _row("heston_tq", HestonTQ, Heston),
        _row("heston_near_exact", HestonNearExact, Heston),
        _row("leveraged", Leveraged, LocalStochasticVol),
        _row("free_volatility", FreeVolatility, NeuralStochasticVol),
        _row("with_jumps", WithJumps, JumpDiffusion),
        _row("correlated", Correlated, MultiAsset),
        _row("euler_maruyama", EulerMaruyama, SDE),
        _row("ito_milstein", ItoMilstein, SDE),
        _row("heun", Heun, SDE),
        _row("reversible_heun", ReversibleHeun, SDE),
        _row("stratonovich_milstein", StratonovichMilstein, SDE),
        _row("midpoint", Midpoint, SDE),
        _row("euler_heun", EulerHeun, SDE),
        _row("sra1", SRA1, SDE),
        _row("srid2", SRID2, SDE),
        _row("log_ode", LogODE, SDE),
        _row("shark", ShARK, SDE),
        _row("platen_weak2", PlatenWeak2, SDE),
        _row("ninomiya_victoir", NinomiyaVictoir, SDE),
        _row("strang", Strang, SDE),
        _row("ubu", UBU, SDE),
    )
}

_DEFAULTS: dict[type[Model], Scheme] = {
    BlackScholes: Exact(),
    Heston: HestonQE(),
    LocalStochasticVol: Leveraged(),
    NeuralStochasticVol: FreeVolatility(),
}
_SDE_DEFAULTS: dict[str, Scheme] = {"ito": EulerMaruyama(), "stratonovich": Heun()}


def scheme_for(model: Model) -> Scheme:
    """The default scheme: exact for Black-Scholes, HestonQE for Heston, and so on, each with its jumps.

    For an SDE it is EulerMaruyama, or Heun where it is of Stratonovich type. A MultiAsset has those of its underlyings,
    correlated.

    Raises:
        InputError: no scheme steps this model.

    Example:
        >>> scheme_for(BlackScholes(0.2))
        Exact()
    """
    if isinstance(model, MultiAsset):
        return Correlated(tuple(scheme_for(m) for m in model.models), tuple(type(m) for m in model.models))  # type: ignore[misc]
    inner, jumps = layers(model)
    scheme = _SDE_DEFAULTS[inner.interpretation] if isinstance(inner, SDE) else _DEFAULTS.get(type(inner))
    if scheme is None:
        known = [*(m.__name__ for m in _DEFAULTS), SDE.__name__, MultiAsset.__name__]
        raise InputError(f"no scheme steps a {inner.name}; there are schemes for {known}")
    return WithJumps(scheme, tuple(type(law) for law in jumps)) if jumps else scheme
