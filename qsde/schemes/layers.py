"""What lies inside a nest of jump diffusions, and which scheme is made for it."""

from __future__ import annotations

from collections.abc import Sequence

from qsde.errors import InputError
from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.models.jump_diffusion import JumpDiffusion
from qsde.models.jumps import JumpLaw
from qsde.models.lsv import LocalStochasticVol
from qsde.models.multi_asset import MultiAsset
from qsde.models.neural_sv import NeuralStochasticVol
from qsde.models.sde import SDE

_MADE_FOR: dict[type[Model], str] = {
    BlackScholes: "Exact()",
    Heston: "HestonQE()",
    LocalStochasticVol: "Leveraged()",
    NeuralStochasticVol: "FreeVolatility()",
    SDE: "EulerMaruyama()",
}


def layers(model: Model) -> tuple[Model, list[JumpLaw]]:
    """The diffusion inside a nest of JumpDiffusion, and the jump laws around it, innermost first.

    Example:
        >>> from qsde.models import merton
        >>> inner, jumps = layers(merton(0.2, 0.3, -0.1, 0.15))
        >>> inner.name, [type(law).__name__ for law in jumps]
        ('BlackScholes', ['MertonJumps'])
    """
    jumps: list[JumpLaw] = []
    while isinstance(model, JumpDiffusion):
        jumps.insert(0, model.jumps)
        model = model.diffusion
    return model, jumps


def refusal(claim: str, model: Model) -> InputError:
    """The error of a scheme that does not step `model`, naming one that does.

    Example:
        >>> print(refusal("HestonQE steps a Heston", BlackScholes(0.2)))
        HestonQE steps a Heston, got BlackScholes; use Exact()
    """
    inner, jumps = layers(model)
    made = _made_for(inner)
    laws = tuple(type(law) for law in jumps)
    fix = "no scheme steps it" if made is None else f"use {with_jumps_text(made, laws) if laws else made}"
    return InputError(f"{claim}, got {model.name}; {fix}")


def with_jumps_text(diffusion: str, laws: tuple[type[JumpLaw], ...]) -> str:
    """What to type for these laws around a diffusion.

    Example:
        >>> from qsde.models import KouJumps
        >>> with_jumps_text("HestonQE()", (KouJumps,))
        'WithJumps(HestonQE(), (KouJumps,))'
    """
    names = ", ".join(law.__name__ for law in laws) + ("," if len(laws) == 1 else "")
    return f"WithJumps({diffusion}, ({names}))"


def correlated_text(schemes: Sequence[str], models: Sequence[type[Model]]) -> str:
    """What to type for these schemes side by side.

    Example:
        >>> correlated_text(["HestonQE()", "Exact()"], [Heston, BlackScholes])
        'Correlated((HestonQE(), Exact()), (Heston, BlackScholes))'
    """
    return f"Correlated(({', '.join(schemes)}), ({', '.join(m.__name__ for m in models)}))"


def _made_for(model: Model) -> str | None:
    if isinstance(model, MultiAsset):
        models = [type(m) for m in model.models]
        return correlated_text([_MADE_FOR[m] for m in models], models)
    return _MADE_FOR.get(type(model))
