"""Bias of the Heston schemes against step size, on the standard stress cases, with a plot.

Cases of Andersen (2008) and Broadie and Kaya (2006) in tests/reference/heston_mc_standard_cases.csv are priced at the
money with every scheme and steps from one a year to 32, on the same noise; the bias is the distance to the Fourier
price. A row holds if QE-M at 32 steps a year is within four standard errors and 0.3 % of the forward. `--plot FILE`
draws bias against step size (needs matplotlib).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from harness import Row, parser, report
from surfaces import REFERENCE

from qsde.market.underlying import Market
from qsde.models import Heston
from qsde.noise import Antithetic, Threefry
from qsde.payoffs import European
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import HestonQE, LogEuler, Milstein, Scheme

SCHEMES: dict[str, Scheme] = {"Euler, full truncation": LogEuler(), "Milstein": Milstein(), "QE-M": HestonQE()}
STEPS = (1, 2, 4, 8, 16, 32)
CASES = ("Andersen2008 Case I", "Andersen2008 Case II", "vanHaastrecht-Pelsser Case II", "Broadie-Kaya 2006 Table 1")


def study(paths: int) -> pd.DataFrame:
    """Bias and standard error, in percent of the forward, by case, scheme and steps a year."""
    table = pd.read_csv(REFERENCE / "heston_mc_standard_cases.csv")
    out = []
    for case in CASES:
        row = table[table["case"].str.startswith(case) & (table["strike"] == 100)].iloc[0]
        model = Heston(row["v0"], row["kappa"], row["theta"], row["sigma"], row["rho"])
        market = Market(float(row["spot"]), float(row["r"]), float(row["q"]))
        years = float(row["T"])
        forward, discount = market.forward(years), market.discount(years)
        exact = price_european(model, 100.0, years, forward, discount).value
        for name, scheme in SCHEMES.items():
            for steps in STEPS:
                engine = MonteCarlo(n_paths=paths, max_dt=1 / steps, scheme=scheme, noise=Antithetic(Threefry(3)))
                found = price(model, European(100.0, years), market, engine)
                scale = 100 / float(forward * discount)
                bias, error = float(found.value - exact) * scale, float(found.std_error) * scale
                out.append({"case": case, "scheme": name, "steps": steps, "bias": bias, "error": error})
    return pd.DataFrame(out)


def plot(table: pd.DataFrame, path: Path) -> None:
    """One panel per case: absolute bias against steps a year, with the noise floor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharex=True)
    for axis, (case, part) in zip(axes.flat, table.groupby("case", sort=False), strict=True):
        for name, line in part.groupby("scheme", sort=False):
            axis.errorbar(line["steps"], line["bias"].abs(), yerr=2 * line["error"], marker="o", capsize=2, label=name)
        axis.plot(STEPS, [4 * part["error"].mean()] * len(STEPS), "k:", lw=1, label="4 standard errors")
        axis.set(title=case, xscale="log", yscale="log", xlabel="steps per year", ylabel="|bias|, % of forward")
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    """Prints all figures; exit code 1 if QE-M misses its bound."""
    asked = parser(__doc__)
    asked.add_argument("--plot", type=Path, metavar="FILE", help="also draw the bias, as PNG")
    options = asked.parse_args()
    table = study(1 << 14 if options.quick else 1 << 17)
    rows = []
    for line in table.itertuples():
        bound = max(4 * line.error, 0.3) if line.scheme == "QE-M" and line.steps == STEPS[-1] else None
        figure = f"{line.case}, {line.scheme}, {line.steps} steps a year"
        rows.append(Row(figure, abs(line.bias), bound, None if bound is None else 1.0, "% of F"))
    if options.plot:
        plot(table, options.plot)
    return 0 if report(rows, options.json) else 1


if __name__ == "__main__":
    sys.exit(main())
