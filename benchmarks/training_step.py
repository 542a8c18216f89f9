"""A training step at the published size against the same network and optimizer from torch.nn, in one run.

    python benchmarks/training_step.py [--batch 4] [--repeats 5]

float32, 599 frames, dropout 0.1, AdamW, the loss of the pretext task; both sides with all cores of the machine, each
in a process of its own. Each takes its steps in a row, as training does, in two blocks in turn; medians.
Beside them, the best float32 matrix-product rate of each library here, and the share of its own that each side's step
reaches (model FLOP by hand count: three forward passes). The ratio of the two libraries depends on the processor: on an
AMD EPYC with AVX-512 torch's products (MKL) run at half the rate of XLA's, on one without at the same rate. Run it with
GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as `make bench` does.
"""

import argparse
import time
from functools import cache
from typing import Any, NamedTuple

from timing import Turns, Worker, in_turns, median

PRODUCT = 2048


class Comparison(NamedTuple):
    """A job on both sides: seconds a turn, and our rate."""

    job: str
    ours_s: float
    torch_s: float
    ours_flops: float
    """A second, by hand count."""
    torch_flops: float

    @property
    def ratio(self) -> float:
        return self.torch_s / self.ours_s


@cache
def _job(side: str, job: str, batch: int) -> Turns:
    import jax_side
    import torch_side

    settings = jax_side.settings_of(compute="float32")
    match side, job:
        case "ours", "product":
            return jax_side.product(PRODUCT, "float32")
        case "ours", "step":
            return jax_side.step(settings, batch)
        case "ours", _:
            return jax_side.forward(settings, batch)
        case _, "product":
            return torch_side.product(PRODUCT, "float32")
        case _, "step":
            return torch_side.step(settings, batch, best=False)
        case _:
            return torch_side.forward(settings, batch)


def serve(request: tuple[str, str, int]) -> float:
    """Seconds of one turn of (side, job, batch); the first makes it ready."""
    turns = _job(*request)
    begin = time.perf_counter()
    turns(1)
    return time.perf_counter() - begin


def compare(batch: int, repeats: int) -> dict[str, Comparison]:
    """`product` (the best of 30 turns), `step` and `forward` (medians), ours and torch's in turn."""
    from selfpab_jax.model.config import ModelSettings, forward_flops, training_flops

    workers = {side: Worker(serve) for side in ("ours", "torch")}
    sizes = (ModelSettings(), 156, 156, 599)
    flops = {
        "product": 2 * PRODUCT**3,
        "step": batch * training_flops(*sizes),
        "forward": batch * forward_flops(*sizes),
    }

    def both(job: str) -> Comparison:
        requests: dict[str, Any] = {side: (side, job, batch) for side in workers}
        seconds = in_turns(workers, requests, 15 if job == "product" else repeats)
        pick = min if job == "product" else median
        ours, theirs = pick(seconds["ours"]), pick(seconds["torch"])
        return Comparison(job, ours, theirs, flops[job] / ours, flops[job] / theirs)

    try:
        return {job: both(job) for job in flops}
    finally:
        for worker in workers.values():
            worker.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"float32, batch {options.batch}, medians of 2 x {options.repeats}", flush=True)
    found = compare(options.batch, options.repeats)
    product = found.pop("product")
    print(
        f"matrix product       ours {product.ours_flops / 1e9:7.1f} GFLOP/s   "
        f"torch {product.torch_flops / 1e9:7.1f} GFLOP/s   (the best)"
    )
    for job, it in found.items():
        print(
            f"{job:<20} ours {it.ours_s:6.2f} s   torch {it.torch_s:6.2f} s   torch / ours {it.ratio:5.2f}   "
            f"of its own matrix product: ours {it.ours_flops / product.ours_flops:.0%}, "
            f"torch {it.torch_flops / product.torch_flops:.0%}"
        )


if __name__ == "__main__":
    main()
