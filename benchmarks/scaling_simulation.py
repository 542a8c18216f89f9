"""Whether 95% intervals hold the truth: laws fitted to simulated sweeps whose law is known.

    python benchmarks/scaling_simulation.py [--sweeps 200] [--joint 40]

A row a kind of scatter (see `selfpab_jax.scaling.simulate.simulate`): the share of sweeps whose interval holds the true
exponent, and the true loss at ten times the largest amount; how far off that loss was foretold; how wide intervals are.
Refused sweeps make no claim and are counted apart. With 200 sweeps a share of 95% has a standard error of 1.5%.
"""

import argparse
import time

import numpy as np

from selfpab_jax.scaling.laws.forms import FLOORED, JOINT, Law
from selfpab_jax.scaling.simulate import SCATTERS, trial

HEAD = (
    "scatter        sweeps refused   exponent held   loss at 10x held   error of that loss, median / 90%   "
    "its interval, median   exponent high/low, median   s a sweep"
)


def row(scatter: str, sweeps: int, law: Law) -> str:
    began = time.perf_counter()
    trials = [trial(scatter, seed, law) for seed in range(sweeps)]
    seconds = (time.perf_counter() - began) / sweeps
    made = [one for one in trials if not one.refused]
    exponents = " and ".join(f"{share:.1%}" for share in np.mean([one.exponents_held for one in made], axis=0))
    middle, most = np.quantile(np.abs([one.error for one in made]), [0.5, 0.9])
    width = np.expm1(np.median([one.width for one in made]))
    span = np.median([one.spans for one in made])
    held = np.mean([one.loss_held for one in made])
    return (
        f"{scatter:<14} {sweeps:>6} {sweeps - len(made):>7} {exponents:>15} "
        f"{held:>18.1%} {middle:>27.1%} / {most:.1%} {width:>22.1%} {span:>27.2f} {seconds:>11.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--joint", type=int, default=40, help="sweeps over sizes and hours")
    options = parser.parse_args()
    print(f"L = E + A D^-a\n{HEAD}")
    for scatter in SCATTERS:
        print(row(scatter, options.sweeps, FLOORED), flush=True)
    if options.joint:
        print(f"L = E + A N^-a + B D^-b (both exponents)\n{HEAD}")
        print(row("even", options.joint, JOINT), flush=True)


if __name__ == "__main__":
    main()
