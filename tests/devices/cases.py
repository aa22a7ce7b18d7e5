"""What a device may be asked to do, case by case; as a script, each on the CPU and on the pretended device."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import qsde
from qsde import (
    American,
    Antithetic,
    Asian,
    Autocallable,
    AverageStrike,
    Barrier,
    Basket,
    Bermudan,
    BlackScholes,
    CashDividend,
    Cliquet,
    Digital,
    DoubleBarrier,
    European,
    FixedLookback,
    FloatingLookback,
    ForwardStart,
    Gap,
    Heston,
    JumpDiffusion,
    Market,
    Markets,
    MertonJumps,
    MonteCarlo,
    MultiAsset,
    NoTouch,
    OneTouch,
    PathFunction,
    Sobol,
    Surface,
    Threefry,
    VarianceOption,
    VarianceSwap,
    VolatilitySwap,
    WorstOf,
    bates,
    calibrate,
    price,
    train,
)
from qsde.calibration import neural_local_vol
from qsde.greeks import greeks, parameter_gradient, scenarios
from qsde.market.american import american_error, american_price, american_vol
from qsde.models import SDE, GridLeverage, Model, leveraged
from qsde.payoffs import Claim
from qsde.schemes import SRA1, HestonTQ, LogEuler, Milstein, PlatenWeak2, ReversibleHeun, Scheme
from qsde.solve import Adaptive, Jumps, sdeint

Case = Callable[[str], Any]

MARKET = Market(100.0, rate=0.02)
PAYING = Market(100.0, rate=0.02, dividends=[CashDividend(0.3, 2.0)])
TWO = Markets([MARKET, Market(95.0, rate=0.02)])
MONTHS, QUARTERS = [i / 12 for i in range(1, 13)], [0.25, 0.5, 0.75, 1.0]
HESTON = Heston.typical()
BATES = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
PAIR = MultiAsset([HESTON, BlackScholes(0.2)], correlation=[[1.0, 0.6], [0.6, 1.0]])
LOCAL = leveraged(HESTON, GridLeverage([0.0, 1.0], [-0.5, 0.5], [[1.1, 0.9], [1.05, 0.95]], scale=0.2))
NOTE = Autocallable(observations=QUARTERS, initial=100.0, coupon=0.02, knock_in=0.7, notional=100.0)
BOOK: dict[str, Claim] = {
    "european": European(100.0, 1.0),
    "digital": Digital(105.0, 1.0),
    "gap": Gap(100.0, 105.0, 1.0),
    "asian": Asian(100.0, MONTHS),
    "average strike": AverageStrike(MONTHS),
    "barrier": Barrier(100.0, 130.0, 1.0, style="up-and-out"),
    "dated barrier": Barrier(100.0, 80.0, 1.0, style="down-and-in", monitoring=QUARTERS),
    "double barrier": DoubleBarrier(100.0, 80.0, 130.0, 1.0, style="knock-out"),
    "one touch": OneTouch(1.0, upper=120.0),
    "no touch": NoTouch(1.0, 80.0, 130.0),
    "floating lookback": FloatingLookback(1.0),
    "fixed lookback": FixedLookback(100.0, 1.0),
    "forward start": ForwardStart(0.5, 1.0),
    "cliquet": Cliquet([0.0, *QUARTERS], local_cap=0.05, global_floor=0.0),
    "variance swap": VarianceSwap(0.04, [0.0, *MONTHS]),
    "volatility swap": VolatilitySwap(0.2, [0.0, *MONTHS]),
    "variance option": VarianceOption(0.04, [0.0, *MONTHS]),
    "autocallable": NOTE,
    "path function": PathFunction(MONTHS, lambda s: s.amax(-1) - s[..., -1]),
    "american": American(100.0, 1.0, kind="put", dates_per_year=12),
    "bermudan": Bermudan(100.0, QUARTERS, kind="put"),
}


def engine(device: str, **settings: Any) -> MonteCarlo:
    return MonteCarlo(**{"n_paths": 512, "max_dt": 1 / 4, "compile": "never", "device": device, **settings})


def priced(model: Model, claim: Claim | list[Claim], market: Market | Markets = MARKET, **settings: Any) -> Case:
    def run(device: str) -> Any:
        found = price(model, claim, market, engine(device, **settings))
        return found.value.tolist(), found.std_error.tolist(), found.upper.tolist()

    return run


def differentiated(scheme: Scheme | None = None, **settings: Any) -> Case:
    def run(device: str) -> Any:
        spot, rho = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (100.0, -0.7))
        model = JumpDiffusion(Heston(0.04, 1.5, 0.05, 0.4, rho), MertonJumps(0.3, -0.1, 0.15))  # type: ignore[arg-type]
        found = price(model, BOOK["asian"], Market(spot, rate=0.02), engine(device, scheme=scheme, **settings))
        found.value.backward()  # type: ignore[no-untyped-call]
        return found.value.item(), spot.grad.item(), rho.grad.item()  # type: ignore[union-attr]

    return run


def sensitive(
    model: Model, claim: Claim, market: Market | Markets = MARKET, which: list[str] | None = None, **settings: Any
) -> Case:
    def run(device: str) -> Any:
        found = greeks(model, claim, market, engine(device, **settings), which=which)
        return found.value.tolist(), found.std_error.tolist()

    return run


def solved(gradient: str, **settings: Any) -> Case:
    def run(device: str) -> Any:
        pull = torch.tensor(2.0, dtype=torch.float64, device=device, requires_grad=True)
        stratonovich = gradient in ("reversible", "stochastic_adjoint")
        sde = SDE(
            drift=lambda t, y, p: -p["pull"] * y,
            diffusion=lambda t, y, p: 0.3 * torch.ones_like(y),
            parameters={"pull": pull},
            noise="additive" if isinstance(settings.get("scheme"), SRA1) else "diagonal",
            interpretation="stratonovich" if stratonovich else "ito",
        )
        y0 = torch.ones(16, 1, dtype=torch.float64, device=device)
        step = {} if "adaptive" in settings else {"max_dt": 0.05}
        y = sdeint(sde, y0, [0.0, 0.5, 1.0], gradient=gradient, **step, **settings)  # type: ignore[arg-type]
        y[-1].square().mean().backward()  # type: ignore[no-untyped-call]
        return y.detach().tolist(), pull.grad.item()  # type: ignore[union-attr]

    return run


def _surface() -> Surface:
    return Surface.from_vols([0.5] * 3 + [1.0] * 3, [90.0, 100.0, 110.0] * 2, [0.22, 0.2, 0.19, 0.22, 0.21, 0.2], 100.0)


def calibrated(device: str) -> Any:
    return calibrate(HESTON, _surface(), starts=1, engine=engine(device, max_dt=1 / 8)).rmse_bp


def trained(device: str) -> Any:
    surface = _surface()
    return train(neural_local_vol(surface), surface, engine=engine(device), max_steps=2).rmse_bp


def grid(device: str) -> Any:
    return scenarios(HESTON, BOOK["asian"], MARKET, engine(device), which=["price", "delta"]).frame().to_dict("list")


def by_parameters(device: str) -> Any:
    found = parameter_gradient(HESTON, [BOOK["asian"]], MARKET, engine(device))
    return found.samples.tolist()


def american(device: str) -> Any:
    strike = torch.tensor([70.0, 90.0, 110.0], dtype=torch.float64, device=device, requires_grad=True)
    option = (torch.full_like(strike, 100.0).detach(), strike, 0.5 * torch.ones_like(strike).detach())
    value = american_price(*option, 0.2, 0.05, 0.02, torch.tensor(True))
    value.sum().backward()  # type: ignore[no-untyped-call]
    rates = (torch.full_like(option[0], rate) for rate in (0.05, 0.02))
    found = american_vol(value.detach(), option[0], strike.detach(), option[2], *rates, strike.detach() > 0)
    error = american_error(*(x.detach() for x in option), 0.2, 0.05, 0.02, True)
    return value.tolist(), strike.grad.tolist(), found.vol.tolist(), error.tolist()  # type: ignore[union-attr]


CASES: dict[str, Case] = {
    "American options under Black-Scholes": american,
    **{f"price of {name}": priced(BATES, claim, PAYING) for name, claim in BOOK.items()},
    "price of basket": priced(PAIR, Basket([0.5, 0.5], 100.0, 1.0), TWO),
    "price of worst-of": priced(PAIR, WorstOf([1.0, 1.0], 100.0, 1.0), TWO),
    "price under local-stochastic vol": priced(LOCAL, BOOK["barrier"]),
    "price, float32, Sobol": priced(HESTON, BOOK["asian"], dtype=torch.float32, noise=Sobol(1)),
    "price, antithetic": priced(HESTON, BOOK["asian"], noise=Antithetic(Threefry(1))),
    **{
        f"price by {type(scheme).__name__}": priced(HESTON, BOOK["asian"], scheme=scheme)
        for scheme in (HestonTQ(), LogEuler(), Milstein())
    },
    "gradient": differentiated(),
    "gradient, float32": differentiated(dtype=torch.float32),
    "gradient of many steps": differentiated(max_dt=1 / 120),
    **{
        f"Greeks of {name}": sensitive(BATES, BOOK[name])
        for name in ("european", "digital", "asian", "barrier", "dated barrier", "autocallable")
    },
    "delta of bermudan": sensitive(HESTON, BOOK["bermudan"], which=["delta"], n_paths=128),
    "Greeks of basket": sensitive(PAIR, Basket([0.5, 0.5], 100.0, 1.0), TWO),
    "gradient to parameters": by_parameters,
    "scenarios": grid,
    "calibration by simulation": calibrated,
    "training": trained,
    **{f"sdeint, {gradient}": solved(gradient) for gradient in ("direct", "checkpoint", "stochastic_adjoint")},
    "sdeint, reversible": solved("reversible", scheme=ReversibleHeun()),
    "sdeint, PlatenWeak2": solved("checkpoint", scheme=PlatenWeak2()),
    "sdeint, SRA1": solved("checkpoint", scheme=SRA1()),
    "sdeint, adaptive": solved("direct", adaptive=Adaptive(rtol=1e-2, atol=1e-2)),
    "sdeint, jumps": solved("checkpoint", jumps=Jumps(2.0, lambda t, y, p, mark: 0.9 * y)),
}


def compared(case: Case) -> str:
    """ "same" to rounding, or what went wrong."""
    from pretended import NAME, pretended  # type: ignore[import-not-found]

    here = case("cpu")
    try:
        with pretended():
            there = case(NAME)
    except Exception as reason:
        own = [f for f in traceback.extract_tb(reason.__traceback__) if "/qsde/" in f.filename][-2:]
        return f"{' <- '.join(f'{f.filename}:{f.lineno}' for f in reversed(own))}: {str(reason)[:300]}"
    pairs = list(zip(tree_leaves(here), tree_leaves(there), strict=True))
    wrong = [(a, b) for a, b in pairs if not (repr(a) == repr(b) or math.isclose(a, b, rel_tol=1e-9))]
    return f"{wrong[0][0]} on the CPU, {wrong[0][1]} there" if wrong else "same"


def waits(device: str, max_dt: float) -> int:
    """How often a price and its gradient make the device wait."""
    import pretended  # type: ignore[import-not-found]

    before = pretended.waits
    with pretended.pretended():
        differentiated(max_dt=max_dt)(device)
    return pretended.waits - before  # type: ignore[no-any-return]


def main() -> None:
    from pretended import NAME, register

    register()
    qsde.pricing.engine._DEVICE = re.compile(f"cpu|{NAME}")  # type: ignore[attr-defined]
    for name, case in CASES.items():
        print(json.dumps([name, compared(case)]), flush=True)
    print(json.dumps(["waits", [waits(NAME, 1 / 12), waits(NAME, 1 / 48)]]))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
