"""Models as text: one spec per model, told apart by the field `model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from qsde.errors import InputError
from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, Model
from qsde.models.base import Parametric
from qsde.spec.base import Spec, checked


class _ModelSpec(Spec):
    """Parameters by name; `DIFFUSION` and `JUMPS` say which classes they build."""

    DIFFUSION: ClassVar[type[Parametric]]
    JUMPS: ClassVar[type[Parametric] | None] = None

    def build(self) -> Model:
        """The model.

        Raises:
            ParameterError: a parameter lies outside its domain.
        """
        values = self.model_dump(exclude={"model"})
        own = {k: v for k, v in values.items() if not k.startswith("jump_")}
        jumps = {k.removeprefix("jump_"): v for k, v in values.items() if k.startswith("jump_")}
        diffusion: Any = self.DIFFUSION(**own)
        return JumpDiffusion(diffusion, self.JUMPS(**jumps)) if self.JUMPS is not None else diffusion  # type: ignore[arg-type]


class _HestonFields(_ModelSpec):
    DIFFUSION = Heston
    v0: float
    kappa: float
    theta: float
    sigma: float
    rho: float


class _NormalJumps(_ModelSpec):
    JUMPS = MertonJumps
    jump_intensity: float
    jump_mean: float
    jump_std: float


class _ExponentialJumps(_ModelSpec):
    JUMPS = KouJumps
    jump_intensity: float
    jump_p_up: float
    jump_eta_up: float
    jump_eta_down: float


class _BlackScholesFields(_ModelSpec):
    DIFFUSION = BlackScholes
    vol: float


class BlackScholesSpec(_BlackScholesFields):
    """Black-Scholes: `vol`, annualised decimal."""

    model: Literal["black_scholes"] = "black_scholes"


class HestonSpec(_HestonFields):
    """Heston: variances, not volatilities (`v0=0.04` is 20 %).

    Example:
        >>> HestonSpec(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7).build().name
        'Heston'
    """

    model: Literal["heston"] = "heston"


class MertonSpec(_NormalJumps, _BlackScholesFields):
    """Black-Scholes with normal jumps in log S."""

    model: Literal["merton"] = "merton"


class KouSpec(_ExponentialJumps, _BlackScholesFields):
    """Black-Scholes with double exponential jumps in log S."""

    model: Literal["kou"] = "kou"


class BatesSpec(_NormalJumps, _HestonFields):
    """Heston with normal jumps in log S."""

    model: Literal["bates"] = "bates"


class HestonKouSpec(_ExponentialJumps, _HestonFields):
    """Heston with double exponential jumps in log S."""

    model: Literal["heston_kou"] = "heston_kou"


ParametricSpec = BlackScholesSpec | HestonSpec | MertonSpec | KouSpec | BatesSpec | HestonKouSpec

_SPECS: dict[str, type[ParametricSpec]] = {
    "black_scholes": BlackScholesSpec,
    "heston": HestonSpec,
    "merton": MertonSpec,
    "kou": KouSpec,
    "bates": BatesSpec,
    "heston_kou": HestonKouSpec,
}


def _typical(spec: type[ParametricSpec]) -> Callable[[], Model]:
    def build() -> Model:
        diffusion: Any = spec.DIFFUSION.typical()
        return JumpDiffusion(diffusion, spec.JUMPS.typical()) if spec.JUMPS is not None else diffusion  # type: ignore[arg-type]

    return build


#: Model names as users type them, each with a maker of a plausible parameter set.
MODEL_TEMPLATES: dict[str, Callable[[], Model]] = {name: _typical(spec) for name, spec in _SPECS.items()}


def template(name: str) -> Model:
    """A plausible parameter set of the model called `name`; case and hyphens do not matter.

    Raises:
        InputError: no model has this name; the message lists those that exist.

    Example:
        >>> template("Heston-Kou").name
        'HestonKou'
    """
    return MODEL_TEMPLATES[canonical_name(name)]()


def canonical_name(name: str, more: tuple[str, ...] = ()) -> str:
    """The key of `MODEL_TEMPLATES`, or the one of some more names, that is meant by `name`.

    Raises:
        InputError: no model has this name.
    """
    wanted = name.strip().lower().replace("-", "").replace("_", "").replace(" ", "")
    for known in (*_SPECS, *more):
        if wanted == known.replace("_", ""):
            return known
    raise InputError(f"no model is called {name!r}; choose one of {', '.join((*_SPECS, *more))}")


def model_from(name: str, params: Mapping[str, float]) -> Model:
    """The model called `name` with these parameters.

    Raises:
        InputError: the name is unknown, or a parameter is missing, unknown or outside its domain.

    Example:
        >>> model_from("black_scholes", {"vol": 0.2}).params
        {'vol': tensor(0.2000, dtype=torch.float64)}
    """
    spec: ParametricSpec = checked(_SPECS[canonical_name(name)], params)
    return spec.build()


def parametric_spec_of(model: Model) -> ParametricSpec:
    """The spec that builds a model of a few numbers; see `qsde.spec.spec_of` for all models."""
    if model.batch_shape != ():
        raise InputError(f"a spec describes one parameter set; this {model.name} has batch shape {model.batch_shape}")
    diffusion, jumps = (model.diffusion, model.jumps) if isinstance(model, JumpDiffusion) else (model, None)
    for spec in _SPECS.values():
        if type(diffusion) is spec.DIFFUSION and (None if jumps is None else type(jumps)) is spec.JUMPS:
            values: dict[str, Any] = {name: float(value) for name, value in model.params.items()}
            return spec(**values)
    raise InputError(f"{model.name} has no text form; {', '.join(_SPECS)} have one")
