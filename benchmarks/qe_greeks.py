"""Bias of pathwise parameter Greeks through the Heston schemes, against Fourier, at 4, 12 and 52 steps a year.

Calls at the money over one year, by conditional Monte Carlo on Sobol points (16 scrambles). For each case, scheme and
parameter, in percent of a scale:

- total: pathwise derivative of the simulated price less that of the Fourier price;
- boundary: pathwise derivative less a central difference of the simulated price, 2 % of the parameter wide to either
  side, on the same noise: what the jumps of QE's paths hide from the pathwise derivative. Not measured for the other
  schemes, whose paths do not jump (tests/pricing/test_gradient_laws.py).

The scale is the largest |Fourier Greek| over strikes from 80 % to 125 % of the forward, as Greeks to kappa, sigma and
rho change sign near the money. Standard errors from the scrambles; skew and kurtosis of the derivatives of single
paths. HestonQE and HestonTQ have 65,536 paths and show what there was to mend; HestonNearExact, which mends it, has as
many more as bring its standard errors to 0.12 %, up to 2^23 and 10^8 steps. It divides steps that are too long
for it. A row of it holds if |total| is below 0.5 %, fails if it is above by more than four standard errors, and is open
between. `--case NAME` and `--scheme NAME` run one of them.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from harness import machine, parser
from torch import Tensor

from qsde.models import Heston
from qsde.noise import Sobol
from qsde.pricing.fourier import price_european
from qsde.schemes import HestonNearExact, HestonQE, HestonTQ, Scheme, State

NAMES = ("v0", "kappa", "theta", "sigma", "rho")
CASES = {
    "Andersen I": (0.04, 0.5, 0.04, 1.0, -0.9),
    "Andersen II": (0.04, 0.3, 0.04, 0.9, -0.5),
    "Andersen III": (0.09, 1.0, 0.09, 1.0, -0.3),
    "Broadie-Kaya": (0.010201, 6.21, 0.019, 0.61, -0.7),
    "DAX fit": (0.195662, 15.6627, 0.0745912, 3.361918, -0.511492),
    "Fang-Oosterlee": (0.0175, 1.5768, 0.0398, 0.5751, -0.5711),
    "BENCHOP": (0.0225, 2.0, 0.0225, 0.25, -0.5),
    "Ball-Roma": (0.09, 4.0, 0.09, 0.4, 0.0),
}
STEPS = (4, 12, 52)
SCHEMES: tuple[Scheme, ...] = (HestonQE(), HestonTQ(), HestonNearExact())
FORWARD, MOVE, SCRAMBLES, BLOCK = 100.0, 0.02, 16, 1 << 13
#: Largest bias, and the standard error that paths are added for, in percent.
BOUND, ERROR = 0.5, 0.12


@dataclass(frozen=True)
class Line:
    """One Greek of one case, scheme and step; percentages are of `scale`."""

    case: str
    feller: float
    scheme: str
    steps: int
    taken: int
    paths: int
    greek: str
    fourier: float
    scale: float
    pathwise: float
    total: float
    total_error: float
    boundary: float | None
    boundary_error: float | None
    skew: float
    kurtosis: float

    @property
    def holds(self) -> bool | None:
        """Whether the bound is met; None where there is none or the paths are too few to tell."""
        if self.scheme != HestonNearExact.__name__:
            return None
        if abs(self.total) < BOUND:
            return True
        return False if abs(self.total) - 4 * self.total_error > BOUND else None


def fourier(parameters: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Greeks at the money, and their largest size over the strikes."""
    one = torch.tensor(1.0, dtype=torch.float64)
    rows = []
    for strike in (80.0, 90.0, 100.0, 110.0, 125.0):
        leaves = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in parameters]
        value = price_european(Heston(*leaves), strike, 1.0, FORWARD * one, one).value
        rows.append(torch.stack(torch.autograd.grad(value, leaves)))
    return rows[2], torch.stack(rows).abs().amax(0)


def worth(scheme: Scheme, c: Tensor, v0: Tensor, normals: list[Tensor]) -> Tensor:
    """Conditional mean of the call on each path."""
    state: State = torch.zeros_like(v0), v0, torch.zeros_like(v0)
    for z in normals:
        state = compiled(scheme)(state, c, z, z[:0])
    mean, variance = state[0], state[-1].clamp(min=1e-14)
    root = torch.sqrt(variance)
    d = mean / root + root
    grown = torch.exp(mean + 0.5 * variance)
    value: Tensor = FORWARD * (grown * torch.special.ndtr(d) - torch.special.ndtr(d - root))
    return value


@functools.cache
def compiled(scheme: Scheme) -> Callable[..., State]:
    """A step of the scheme through `torch.compile`."""
    step: Callable[..., State] = torch.compile(scheme.step, dynamic=False)
    return step


class Moments:
    """Sums of derivatives over paths: [5, scramble] of them, [4, 5] of their powers."""

    def __init__(self) -> None:
        self.paths = 0
        self.means = torch.zeros(len(NAMES), SCRAMBLES, dtype=torch.float64)
        self.powers = torch.zeros(4, len(NAMES), dtype=torch.float64)

    def add(self, slopes: Tensor) -> None:
        """Derivatives of more paths [5, path], whose scrambles alternate."""
        self.paths += slopes.shape[-1]
        self.means += slopes.unflatten(-1, (-1, SCRAMBLES)).sum(-2)
        self.powers += torch.stack([(slopes**k).sum(-1) for k in (1, 2, 3, 4)])

    def mean(self) -> tuple[Tensor, Tensor]:
        """Mean and standard error, from the scrambles."""
        means = self.means * (SCRAMBLES / self.paths)
        return means.mean(-1), means.std(-1) / math.sqrt(SCRAMBLES)

    def shape(self) -> tuple[Tensor, Tensor]:
        """Skew and kurtosis."""
        m, second, third, fourth = self.powers / self.paths
        spread = second - m * m
        skew = third - 3 * m * second + 2 * m**3
        return skew / spread**1.5, (fourth - 4 * m * third + 6 * m * m * second - 3 * m**4) / spread**2


@dataclass(frozen=True)
class Run:
    """A scheme's paths of a case."""

    scheme: Scheme
    parameters: tuple[float, ...]
    steps: int

    def coefficients(self, *parameters: Tensor) -> Tensor:
        """Numbers of a step."""
        return self.scheme.coefficients(Heston(*parameters), torch.tensor(1 / self.steps, dtype=torch.float64))

    def slopes(self, normals: list[Tensor], tangents: Tensor, c: Tensor) -> Tensor:
        """Derivatives of every path [5, path]."""
        n = normals[0].shape[-1]
        own = c.unsqueeze(-1).repeat(1, n).requires_grad_()
        v0 = torch.full((n,), self.parameters[0], dtype=torch.float64, requires_grad=True)
        of_c, of_v0 = torch.autograd.grad(worth(self.scheme, own, v0, normals).sum(), (own, v0))
        return torch.cat([(tangents @ of_c)[:1] + of_v0, (tangents @ of_c)[1:]])

    def difference(self, normals: list[Tensor], i: int) -> Tensor:
        """Central difference to one parameter on every path."""
        h = MOVE * max(abs(self.parameters[i]), 0.5 if NAMES[i] == "rho" else 0.0)
        ends = []
        for sign in (1, -1):
            moved = [torch.tensor(p + sign * h * (i == k), dtype=torch.float64) for k, p in enumerate(self.parameters)]
            v0 = moved[0].expand(normals[0].shape[-1]).clone()
            c = self.coefficients(*moved).unsqueeze(-1).repeat(1, len(v0))
            ends.append(worth(self.scheme, c, v0, normals))
        return (ends[0] - ends[1]) / (2 * h)

    def moments(self, unit: Tensor, paths: int, most: int) -> tuple[Moments, Moments]:
        """Of the derivatives, and of their excess over differences if the scheme jumps.

        Until the standard errors times `unit` are below `ERROR`, from `paths` to `most` of them.
        """
        leaves = tuple(torch.tensor(p, dtype=torch.float64) for p in self.parameters)
        tangents = torch.stack(torch.autograd.functional.jacobian(self.coefficients, leaves))
        c, noise = self.coefficients(*leaves), Sobol(1, SCRAMBLES)
        found, hidden = Moments(), Moments()
        while found.paths < paths or (found.paths < most and float((found.mean()[1] * unit).max()) > ERROR):
            for first in range(found.paths, max(paths, 2 * found.paths), BLOCK):
                factors = self.scheme.draws(Heston(*leaves), 1 / self.steps)[0]
                draws = noise.block(torch.arange(first, first + BLOCK), self.steps, factors, 0, torch.float64, "cpu")
                normals = [draws.draw(k)[0] for k in range(self.steps)]
                slopes = self.slopes(normals, tangents, c)
                found.add(slopes)
                if isinstance(self.scheme, HestonQE):
                    with torch.no_grad():
                        hidden.add(slopes - torch.stack([self.difference(normals, i) for i in range(len(NAMES))]))
        return found, hidden


def lines(case: str, schemes: list[str], paths: int, most: int) -> Iterator[Line]:
    """All rows of one case, from `paths` to some `8 most / steps` paths and no more than `most`."""
    parameters = CASES[case]
    exact, scale = fourier(parameters)
    feller = 2 * parameters[1] * parameters[2] / parameters[3] ** 2
    for steps in STEPS:
        for scheme in (s for s in SCHEMES if type(s).__name__ in schemes):
            averaged, bounded = scheme.conditional(), isinstance(scheme, HestonNearExact)
            assert averaged is not None
            taken = max(steps, math.ceil(1 / scheme.longest(Heston(*map(torch.tensor, parameters))) - 1e-9))
            found, hidden = Run(averaged, parameters, taken).moments(
                100 / scale, paths, min(most, (most << 3) // taken) if bounded else paths
            )
            (mean, error), (skew, kurtosis) = found.mean(), found.shape()
            excess = hidden.mean() if hidden.paths else None
            for i, name in enumerate(NAMES):
                unit = 100 / float(scale[i])
                yield Line(
                    case,
                    round(feller, 3),
                    type(scheme).__name__,
                    steps,
                    taken,
                    found.paths,
                    name,
                    float(exact[i]),
                    float(scale[i]),
                    float(mean[i]),
                    float(mean[i] - exact[i]) * unit,
                    float(error[i]) * unit,
                    None if excess is None else float(excess[0][i]) * unit,
                    None if excess is None else float(excess[1][i]) * unit,
                    float(skew[i]),
                    float(kurtosis[i]),
                )


def show(line: Line) -> str:
    """One printed row."""
    boundary = "" if line.boundary is None else f"{line.boundary:8.2f} ± {line.boundary_error:.2f}"
    verdict = {True: "yes", False: "NO", None: "-"}[line.holds]
    return (
        f"{line.case:15s} {line.feller:6.2f} {line.steps:3d} {line.scheme:15s} {line.greek:6s} {line.fourier:9.4f} "
        f"{line.scale:9.4f} {line.total:8.2f} ± {line.total_error:5.2f} {boundary:16s} {line.skew:8.1f} "
        f"{line.kurtosis:9.1f}  {verdict}"
    )


def main() -> int:
    """Prints all rows; exit code 1 if a bound is missed."""
    asked = parser(__doc__)
    asked.add_argument("--case", choices=CASES, help="this case only; others stay in the file")
    names = [type(s).__name__ for s in SCHEMES]
    asked.add_argument("--scheme", choices=names, action="append", help="these schemes only, likewise")
    options = asked.parse_args()
    schemes = options.scheme or names
    torch.set_num_threads(1)
    if options.quick:
        torch.compiler.set_stance("force_eager")
    found = []
    print("case, Feller ratio, steps a year, scheme, Greek, Fourier, scale, total %, boundary %, skew, kurtosis, holds")
    for case in [options.case] if options.case else CASES:
        for line in lines(case, schemes, *((1 << 13, 1 << 13) if options.quick else (1 << 16, 1 << 23))):
            print(show(line), flush=True)
            found.append(line)
    if options.json:
        old = json.loads(options.json.read_text())["rows"] if options.json.exists() else []
        done = {(line.case, line.scheme) for line in found}
        rows = [row for row in old if (row["case"], row["scheme"]) not in done] + [
            asdict(line) | {"holds": line.holds} for line in found
        ]
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return 0 if all(line.holds is not False for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
