"""A GPU against the CPU with the same seed, and its speed against what the machine can do at all.

Correctness: prices and gradients of a European and an Asian under Heston and Bates, float32 and float64, on both
devices from the same noise, which differs by the rounding of log and cos only.

Speed: a European under Heston QE-M, 96 steps a year, price alone and price + 8 sensitivities, against ceilings measured
in the same run: the time to move the state of a step through memory at the speed of a copy kernel, the time to draw the
step's normals by a kernel that does nothing else, and the step's operations if each took no longer than a multiply-add.

`--device cpu` runs the same on the CPU, to exercise the script. Without the device: exit code 2, nothing written.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from harness import Row, machine, parser, report
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qsde.market.underlying import Market
from qsde.models import Heston, Model, bates
from qsde.noise.threefry import path_words, seed_key, threefry_draw
from qsde.payoffs import Asian, European, Payoff
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import HestonQE

HESTON = (0.04, 1.5, 0.04, 0.5, -0.7)
BATES = (*HESTON, 0.4, -0.1, 0.15)
STEPS = 96
PAYOFFS: dict[str, Payoff] = {
    "European": European(100.0, 1.0),
    "Asian": Asian(100.0, [i / 12 for i in range(1, 13)]),
}
#: How far the device may be from the CPU, relative to the price (or to the largest sensitivity).
CLOSE = {torch.float32: 1e-4, torch.float64: 1e-10}
#: Numbers that a step reads and writes per path: log-price and variance; backwards the state, and gradients in and out.
MOVED, MOVED_BACK = 4, 6
CHAINS, LINKS = 16, 32


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def missing(device: str) -> str | None:
    """Why the device cannot be used, or None."""
    try:
        torch.empty(1, device=device).add_(1)
    except (RuntimeError, AssertionError) as reason:
        return str(reason).splitlines()[0]
    return None


def device_name(device: str) -> str:
    kind = torch.device(device)
    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else str(machine()["processor"])


def wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds, with everything that was launched done; the first two calls, which compile, do not count."""
    times = []
    for _ in range(rounds + 2):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


# correctness


def priced(make: Callable[..., Model], numbers: tuple[float, ...], payoff: Payoff, engine: MonteCarlo) -> list[float]:
    """Price, then its sensitivities to the spot and to the parameters of the diffusion."""
    leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=i < 6) for i, v in enumerate((100.0, *numbers))]
    spot, *parameters = leaves
    value = price(make(*parameters), payoff, Market(spot, 0.03), engine).value
    return [float(value.detach()), *(float(g) for g in torch.autograd.grad(value, leaves[:6]))]


def agreement(device: str, dtype: torch.dtype, paths: int) -> list[Row]:
    """Largest relative differences between the device and the CPU."""
    rows = []
    models: dict[str, tuple[Callable[..., Model], tuple[float, ...]]] = {"Heston": (Heston, HESTON),
                                                                         "Bates": (bates, BATES)}  # fmt: skip
    for model, (make, numbers) in models.items():
        for payoff_name, payoff in PAYOFFS.items():
            here, there = (
                priced(make, numbers, payoff, MonteCarlo(paths, 1 / 12, dtype=dtype, device=d, compile="never"))
                for d in ("cpu", device)
            )
            gaps = [abs(a - b) for a, b in zip(here, there, strict=True)]
            figure = f"{payoff_name}, {model} {name_of(dtype)}: device - CPU, relative"
            # a difference of 0 would make the ratio infinite, which JSON does not know
            of_price = max(gaps[0] / abs(here[0]), 1e-17)
            of_slopes = max(max(gaps[1:]) / max(map(abs, here[1:])), 1e-17)
            rows += [Row(f"{figure}, price", of_price, CLOSE[dtype], 1.0, ""),
                     Row(f"{figure}, gradient", of_slopes, 10 * CLOSE[dtype], 1.0, "")]  # fmt: skip
    return rows


# ceilings


def copy_rate(device: str, megabytes: int, rounds: int) -> float:
    """Bytes per second, read plus written, of a copy within the device's memory."""
    a = torch.ones(megabytes << 18, dtype=torch.float32, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / timed(lambda: b.copy_(a), device, rounds)


def fma_rate(device: str, dtype: torch.dtype, n: int, rounds: int) -> float:
    """Multiply-adds per second of a kernel that does little else."""

    def work(x: Tensor, a: Tensor) -> Tensor:
        chains = [x + i for i in range(CHAINS)]
        for _ in range(LINKS):
            chains = [y * a + x for y in chains]
        return sum(chains[1:], chains[0])  # in registers

    kernel = torch.compile(work, dynamic=False)
    x, a = torch.rand(n, dtype=dtype, device=device), torch.tensor(0.5, dtype=dtype, device=device)
    return CHAINS * LINKS * n / timed(lambda: kernel(x, a), device, rounds)


def draw_seconds(device: str, dtype: torch.dtype, n: int, rounds: int) -> float:
    """Seconds per path to draw what a Heston QE-M step needs, with one number written per path."""
    n_normals, n_uniforms = HestonQE().draws(Heston(*HESTON), 1 / STEPS)
    words, key = path_words(torch.arange(n), device), seed_key(1, device)

    def draw(step: Tensor) -> Tensor:
        normals, uniforms = threefry_draw(words, step, key, n_normals, n_uniforms, dtype)
        return torch.stack([*normals, *uniforms]).sum(0)

    kernel = torch.compile(draw, dynamic=False)
    step = torch.tensor(3, device=device)
    return timed(lambda: kernel(step), device, rounds) / n


def operations(dtype: torch.dtype) -> int:
    """Elementwise operations on whole blocks of paths in a Heston QE-M step, besides its draws."""
    model, scheme, paths = Heston(*HESTON), HestonQE(), 7
    c = scheme.coefficients(model, torch.tensor(1 / STEPS, dtype=torch.float64)).unsqueeze(-1).to(dtype)
    n_normals, n_uniforms = scheme.draws(model, 1 / STEPS)
    normals, uniforms = (torch.rand(n, paths, dtype=dtype) for n in (n_normals, n_uniforms))
    state = (torch.zeros(paths, dtype=dtype), torch.full((paths,), 0.04, dtype=dtype))
    graph = make_fx(lambda *inputs: scheme.step(*inputs))(state, c, normals, uniforms).graph
    moves = ("select", "unbind", "getitem", "view", "unsqueeze", "detach")
    return sum(
        node.op == "call_function"
        and getattr(node.meta.get("val"), "shape", ())[-1:] == (paths,)
        and not any(move in str(node.target) for move in moves)
        for node in graph.nodes
    )


# speed


def sensitivities(engine: MonteCarlo) -> list[float]:
    inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (*HESTON, 100.0, 0.03, 100.0)]
    *parameters, spot, rate, strike = inputs
    value = price(Heston(*parameters), European(strike, 1.0), Market(spot, rate), engine).value
    return [float(g) for g in torch.autograd.grad(value, inputs)]


def speed(device: str, dtype: torch.dtype, paths: int, size: int, rounds: int) -> list[Row]:
    """Nanoseconds per path-step of price and gradient, compiled and eager, against the ceilings."""
    ns, unit = 1e9, "ns/path-step"
    item = torch.empty(0, dtype=dtype).element_size()
    copied, fused = copy_rate(device, max(256, size >> 14), rounds), fma_rate(device, dtype, size, rounds)
    drawn = draw_seconds(device, dtype, size, rounds)
    label = f"Heston QE-M {name_of(dtype)}"
    rows = [
        Row(f"copy, {name_of(dtype)} run", copied / 1e9, None, None, "GB/s", larger_is_better=True),
        Row(f"multiply-add, {name_of(dtype)}", fused / 1e9, None, None, "G/s", larger_is_better=True),
    ]
    model, call, market = Heston(*HESTON), European(100.0, 1.0), Market(100.0, 0.03)
    counted = operations(dtype)
    for how, mode in (("compiled", "always"), ("eager", "never")):
        # not conditional: all of the price's noise is drawn
        engine = MonteCarlo(paths, 1 / STEPS, dtype=dtype, device=device, compile=mode, conditional=False)  # type: ignore[arg-type]
        alone = timed(partial(price, model, call, market, engine), device, rounds)
        both = timed(partial(sensitivities, engine), device, rounds)
        # the backward sweep draws again and recomputes the step on its way
        for work, seconds, moved, times in (
            ("price", alone, MOVED, 1),
            ("price + gradient", both, MOVED + MOVED_BACK, 2),
        ):
            ours = ns * seconds / (paths * STEPS)
            ceilings = {
                "memory": moved * item / copied,
                "draws": times * drawn,
                f"{times} x {counted} multiply-adds": times * counted / fused,
            }
            rows += [
                Row(f"{label}, {work}, {how}, vs {ceiling}", ours, ns * least, None, unit)
                for ceiling, least in ceilings.items()
            ]
    return rows


class Fallbacks(logging.Handler):
    """Remembers that a kernel ran uncompiled, which would make a row mean something else."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the message."""
        self.messages.append(record.getMessage())


def main() -> int:
    """Prints all figures; exit code 1 if one misses its floor or did not compile, 2 without the device."""
    asked = parser(__doc__)
    asked.add_argument("--device", default="cuda", help="what to measure (default: cuda)")
    options = asked.parse_args()
    why = missing(options.device)
    if why is not None:
        print(f"no device {options.device!r}: {why}; nothing was measured", file=sys.stderr)
        return 2
    fallbacks = Fallbacks()
    logging.getLogger("qsde.solve").addHandler(fallbacks)
    gpu = torch.device(options.device).type == "cuda"
    name = device_name(options.device)
    print(f"device: {name}")
    paths, size = (1 << 20, 1 << 24) if gpu else (1 << 16, 1 << 20)
    if options.quick:
        paths, size = paths >> 2, size >> 1
    rounds = 3 if options.quick else 7
    rows: list[Row] = []
    for dtype in (torch.float32, torch.float64):
        rows += agreement(options.device, dtype, 1 << 14)
        rows += speed(options.device, dtype, paths, size, rounds)
    if gpu:
        peak = torch.cuda.max_memory_allocated(options.device) / 2**20
        rows.append(Row("most device memory in use", peak, None, None, "MiB"))
    good = report(rows, options.json)
    if options.json is not None:
        written = json.loads(options.json.read_text())
        written["machine"] |= {"device": name, "uncompiled": fallbacks.messages}
        options.json.write_text(json.dumps(written, indent=2) + "\n")
    for message in fallbacks.messages:
        print(message, file=sys.stderr)
    return 0 if good and not fallbacks.messages else 1


if __name__ == "__main__":
    sys.exit(main())
