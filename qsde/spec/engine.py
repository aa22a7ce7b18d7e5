"""Pricing engines as text: how a Monte Carlo simulation or a Fourier integral is to be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator

from qsde.errors import InputError
from qsde.models import Model, MultiAsset
from qsde.noise import Antithetic, Noise, Sobol, Threefry
from qsde.pricing.american import LeastSquares
from qsde.pricing.engine import Auto, MonteCarlo
from qsde.pricing.fourier import Fourier
from qsde.schemes import SCHEMES, Correlated, Scheme, WithJumps
from qsde.schemes.layers import layers
from qsde.spec.base import Spec
from qsde.spec.models import MODEL_TEMPLATES

_NOISES: dict[str, Callable[[int], Noise]] = {
    "threefry": Threefry,
    "sobol": Sobol,
    "antithetic": lambda seed: Antithetic(Threefry(seed)),
}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_DIFFUSIONS = {type(layers(typical())[0]) for typical in MODEL_TEMPLATES.values()}
_SCHEME_NAMES = tuple(name for name, row in SCHEMES.items() if _DIFFUSIONS.intersection(row.models))


class LeastSquaresSpec(Spec):
    """Settings of early exercise; see `qsde.pricing.american.LeastSquares`.

    Attributes:
        degree: degree of the polynomials that continuation values are regressed on.
        in_the_money: regress on paths only where exercise pays.
        hedged: take the gains of a hedge out of what is regressed.
        outer: paths of the upper bound; 0 leaves it out.
        inner: points from each of their dates to the next, a power of 2.
    """

    degree: int = Field(default=LeastSquares.degree, ge=1, le=12)
    in_the_money: bool = LeastSquares.in_the_money
    hedged: bool = LeastSquares.hedged
    outer: int = Field(default=LeastSquares.outer, ge=0, le=1 << 20)
    inner: int = Field(default=LeastSquares.inner, ge=2, le=1 << 16)

    def build(self) -> LeastSquares:
        """The settings.

        Raises:
            InputError: `outer` is 1, or `inner` no power of 2.
        """
        return LeastSquares(**self.model_dump())


class SimulationSpec(Spec):
    """Settings of a simulation.

    Attributes:
        paths: number of paths.
        max_dt: largest step in years, ignored by exact schemes.
        seed: seed of the noise: the same seed gives the same digits.
        noise: "threefry" (independent), "antithetic" (pairs of opposite sign) or "sobol" (low discrepancy).
        scheme: name of a scheme for the diffusion, a key of `qsde.schemes.SCHEMES`; None takes the model's default.
            Jumps need no name, they are added to any scheme; every one of several underlyings is stepped by it.
        dtype: precision of the paths.
        device: where the paths live, such as "cpu" or "cuda".
        control_variate: regress each payoff on quantities of known mean.
        conditional: average over part of the noise in closed form where payoffs and scheme allow.
        compile: "auto" compiles large jobs, "always" or "never".
        least_squares: how rights to exercise early are priced.
    """

    paths: int = Field(default=1 << 16, ge=2, le=1 << 32)
    max_dt: float = Field(default=1 / 32, gt=0)
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    noise: Literal["threefry", "sobol", "antithetic"] = "threefry"
    scheme: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    device: str = "cpu"
    control_variate: bool = True
    conditional: bool = True
    compile: Literal["auto", "always", "never"] = "auto"
    least_squares: LeastSquaresSpec = LeastSquaresSpec()

    @field_validator("scheme")
    @classmethod
    def _known_scheme(cls, name: str | None) -> str | None:
        if name is not None and name not in _SCHEME_NAMES:
            raise InputError(f"choose one of {', '.join(_SCHEME_NAMES)}, or null for the model's own")
        return name

    def simulation(self, model: Model) -> MonteCarlo:
        """The simulation of `model`.

        Raises:
            InputError: the device is not there, or the scheme does not step the model.
        """
        return MonteCarlo(
            n_paths=self.paths,
            max_dt=self.max_dt,
            scheme=None if self.scheme is None else _scheme(self.scheme, model),
            noise=_NOISES[self.noise](self.seed),
            dtype=_DTYPES[self.dtype],
            device=self.device,
            control_variate=self.control_variate,
            conditional=self.conditional,
            compile=self.compile,
        )


class AutoSpec(SimulationSpec):
    """Exact prices (Fourier integrals; American options under Black-Scholes), and a simulation of the other payoffs.

    Greeks and scenarios are those of one engine: exact if all payoffs have an exact price and look at the price at
    expiry only or are American, else those of the simulation.
    """

    type: Literal["auto"] = "auto"

    def build(self, model: Model) -> Auto:
        """The engine for `model`; errors as in `simulation`."""
        return Auto(self.simulation(model))


class MonteCarloSpec(SimulationSpec):
    """A simulation of all payoffs.

    Example:
        >>> from qsde.models import Heston
        >>> engine = MonteCarloSpec(paths=1024, noise="sobol", seed=7).build(Heston.typical())
        >>> engine.n_paths, engine.noise.seed
        (1024, 7)
    """

    type: Literal["monte_carlo"] = "monte_carlo"

    def build(self, model: Model) -> MonteCarlo:
        """The engine for `model`; errors as in `simulation`."""
        return self.simulation(model)


class FourierSpec(Spec):
    """Settings of Fourier integrals, for payoffs with an exact price; see `qsde.pricing.fourier.Fourier`."""

    type: Literal["fourier"] = "fourier"
    tolerance: float = Field(default=Fourier.tolerance, gt=0, le=1e-2)
    nodes: int = Field(default=Fourier.nodes, ge=8, le=1 << 14)
    max_nodes: int = Field(default=Fourier.max_nodes, ge=8, le=1 << 18)

    def build(self, model: Model) -> Fourier:
        """The engine; it is the same for all models."""
        return Fourier(self.tolerance, self.nodes, self.max_nodes)


#: Any engine, told apart by its field `type`.
EngineSpec = Annotated[AutoSpec | MonteCarloSpec | FourierSpec, Field(discriminator="type")]


def _scheme(name: str, model: Model) -> Scheme:
    if isinstance(model, MultiAsset):
        return Correlated(tuple(_scheme(name, m) for m in model.models), tuple(type(m) for m in model.models))  # type: ignore[misc]
    diffusion, jumps = layers(model)
    scheme: Scheme = SCHEMES[name].scheme()
    scheme.check(diffusion)
    return WithJumps(scheme, tuple(type(law) for law in jumps)) if jumps else scheme
