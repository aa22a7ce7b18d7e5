"""Greeks of payoffs with exact prices, by automatic differentiation."""

from __future__ import annotations

import torch
from torch import Tensor

from qsde.greeks.inputs import Inputs, Point
from qsde.market.underlying import Market
from qsde.payoffs import American, AtExpiry, European
from qsde.pricing.boundary import price_americans
from qsde.pricing.digital import price_digital
from qsde.pricing.fourier import Fourier, price_european


def worth(payoff: AtExpiry | American, point: Point, engine: Fourier) -> Tensor:
    """Present value of the payoff, differentiable twice in everything."""
    if isinstance(payoff, American):
        assert isinstance(point.market, Market), "exact prices of Americans have one underlying"
        return price_americans(point.model, [payoff], point.market).squeeze(-1)
    market, is_call = point.market, payoff.kind == "call"
    date = torch.tensor(payoff.maturity, dtype=torch.float64)
    t, forward, discount = market.years(date), market.forward(date), market.discount(date)
    if isinstance(payoff, European):
        strike = torch.as_tensor(payoff.strike, dtype=torch.float64)
        return price_european(point.model, strike, t, forward, discount, is_call, engine).value
    assets, cash, trigger = (torch.as_tensor(leg, dtype=torch.float64) for leg in payoff.legs)
    total = torch.zeros((), dtype=torch.float64)
    for amount, pays in ((assets, "asset"), (cash, "cash")):
        if bool(amount != 0):
            leg = price_digital(point.model, trigger, t, forward, discount, is_call, pays, engine)  # type: ignore[arg-type]
            total = total + amount * leg.value
    return total


def exact_greeks(payoff: AtExpiry | American, inputs: Inputs, engine: Fourier, needs: set[str]) -> dict[str, Tensor]:
    """Raw Greeks of one payoff."""
    point = inputs.at()
    leaves = point.leaves
    value = worth(payoff, point, engine)
    first = _gradient(value, leaves, again=True)
    found = {"price": value, "delta": first["spot"], "rho": first["rate"], "dividend_rho": first["dividend_yield"]}
    found |= {"theta": first["elapsed"]} | {f"d_{name}": first[name] for name in inputs.model.params}
    if needs & {"vega", "volga"}:
        found["vega"] = inputs.along(first, "")
    if needs & {"gamma", "vanna", "charm"}:
        second = _gradient(first["spot"], leaves, again=True)
        found |= {"gamma": second["spot"], "charm": second["elapsed"]}
        if "vanna" in needs:
            found["vanna"] = inputs.along(second, "")
    if "volga" in needs:
        found["volga"] = inputs.along(_gradient(found["vega"], leaves, again=False), "")
    return {name: v.detach() for name, v in found.items()}


def _gradient(value: Tensor, leaves: dict[str, Tensor], again: bool) -> dict[str, Tensor]:
    found = torch.autograd.grad(value, list(leaves.values()), create_graph=again, retain_graph=True, allow_unused=True)
    return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), found, strict=True)}
