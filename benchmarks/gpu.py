"""Everything that wants a GPU, in one run: one table, and JSON with `--out`.

    PYTHONPATH=. python benchmarks/gpu.py --out gpu.json [--parts product step large torch embed curve] [--repeats 5]
    PYTHONPATH=. python benchmarks/gpu.py --tiny          (sees that everything runs, on any machine)

Needs jax[cuda12], flax, optax, numpy, scipy, safetensors, jaxtyping, and this package (installed, or by PYTHONPATH);
PyTorch with CUDA where it is to be compared.
- `product`: the card's own rate of bf16 matrix products, several large sizes; the best median counts.
- `step`: training steps of the published size, and the share of that rate: model FLOP by hand count, three forward
  passes; what padding adds and what is computed twice does not count.
- `large`: the same at 1.01 billion parameters.
- `torch`: the same network in PyTorch, as released (float32, TF32 off) and at its best.
- `embed`: hours of recording a second through the frozen encoder. 100,000 hours in 5 minutes are 333.
- `curve`: losses of 200 steps in bf16 against float32: same batches, masking and dropout.
Medians of `--repeats` blocks. A process for each library, one after the other; a job that fails says why, and the
others go on. What is done is in `--out` at once. About 15 minutes on an H100, most of it compilation; the parts may
be run one by one, and figures of one run are compared with the product rate of that run.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_jobs import PARTS, TINY_SCALE, Job, Scale, all_jobs, few_jobs, request_of, serve, setup_of
from timing import Worker, WorkerError, median

JOB_LIMIT_S = 300.0
WANTED_HOURS_A_SECOND = 100_000 / 300


class Sides:
    """The process of the side whose turn it is; a card is never shared by two."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._side = ""

    def ask(self, side: str, request: dict[str, Any], limit_s: float = JOB_LIMIT_S) -> dict[str, Any]:
        """The side's answer; a side that died is started again."""
        if self._worker is None or side != self._side or not self._worker.alive:
            self.close()
            self._worker, self._side = Worker(serve, setup_of(side)), side
        return self._worker.ask(request, limit_s)

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None


def measure(
    jobs: list[Job], sides: Sides, repeats: int, block_s: float, out: Path | None, need_gpu: bool = False
) -> dict[str, Any]:
    """Do the jobs; the report is written after each of them. None is done where a GPU is needed and not there."""
    report: dict[str, Any] = {"about": {}, "jobs": []}
    usable: dict[str, str] = {}  # side -> why not, or empty
    for side in dict.fromkeys(job.side for job in jobs):
        try:
            report["about"][side] = sides.ask(side, {"side": side, "does": "about"})
            usable[side] = ""
        except WorkerError as error:
            report["about"][side] = {"failed": str(error)}
            usable[side] = str(error)
    with_gpu = {side for side, about in report["about"].items() if about.get("gpu")}
    if need_gpu and not with_gpu:
        return report
    for job in jobs:
        entry: dict[str, Any] = asdict(job)
        if not usable[job.side] and with_gpu and job.side not in with_gpu:
            usable[job.side] = f"{job.side} sees no GPU here"
        try:
            if usable[job.side]:
                raise WorkerError(usable[job.side])
            entry |= sides.ask(job.side, request_of(job, repeats, block_s))
        except WorkerError as error:
            entry["failed"] = str(error)
        report["jobs"].append(entry)
        report["product_flops_per_second"] = product_rate(report["jobs"])
        print(line(entry, report["product_flops_per_second"]), file=sys.stderr, flush=True)
        if out is not None:
            out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def product_rate(jobs: list[dict[str, Any]]) -> float | None:
    """The best median of this run, whichever library reached it."""
    rates = [job["flops"] / median(job["seconds"]) for job in jobs if job["part"] == "product" and "seconds" in job]
    return max(rates, default=None)


def line(job: dict[str, Any], product: float | None) -> str:
    """A line of the table."""
    head = f"{job['part']:<8} {job['side']:<6} {job['label']:<58} {job['batch'] or '':>4} "
    if "failed" in job:
        return f"{head} failed: {job['failed'][:120]}"
    if "losses" in job:
        return f"{head} loss {job['losses'][0]:.4f} at first, {tail(job['losses']):.4f} over the last tenth"
    took = median(job["seconds"])
    spread = (max(job["seconds"]) - min(job["seconds"])) / took
    rate = job["flops"] / took
    parts = [f"{1e3 * took:9.2f} ms ±{spread / 2:4.0%}", f"{rate / 1e12:8.2f} TFLOP/s"]
    if product and job["part"] != "product":
        parts.append(f"{rate / product:4.0%} of the product")
    if job["does"] == "embed":
        parts.append(f"{job['hours'] / took:7.1f} h/s")
    return head + "  ".join(parts)


def tail(losses: list[float]) -> float:
    """Mean of the last tenth."""
    count = max(1, len(losses) // 10)
    return sum(losses[-count:]) / count


def summary(report: dict[str, Any]) -> list[str]:
    """What the table says, against what is aimed at."""
    jobs, product, lines = report["jobs"], report["product_flops_per_second"], []

    def best(part: str, side: str, does: str = "step") -> dict[str, Any] | None:
        found = [j for j in jobs if (j["part"], j["side"], j["does"]) == (part, side, does) and "seconds" in j]
        return max(found, key=lambda job: job["flops"] / median(job["seconds"]), default=None)

    if product:
        lines.append(f"product: {product / 1e12:.1f} TFLOP/s in bf16")
    for part, aim in (("step", 0.60), ("large", 0.65)):
        if (job := best(part, "jax")) and product:
            share = job["flops"] / median(job["seconds"]) / product
            lines.append(f"{part}: {share:.0%} of it (aim {aim:.0%}): {job['label']}, batch {job['batch']}")
    # Both do the same work: windows a second, at the same batch and with dropout.
    ours = next((j for j in jobs if j["part"] == "step" and j["label"] == "padded" and "seconds" in j), None)
    for job in jobs:
        if job["part"] == "torch" and "seconds" in job and ours:
            ratio = median(job["seconds"]) / job["batch"] / (median(ours["seconds"]) / ours["batch"])
            lines.append(f"ours is {ratio:.2f} times as fast as torch: {job['label']}")
    if job := best("embed", "jax", "embed"):
        rate = job["hours"] / median(job["seconds"])
        lines.append(f"embed: {rate:.1f} h/s (aim {WANTED_HOURS_A_SECOND:.0f}): {job['label']}")
    curves = [job["losses"] for job in jobs if "losses" in job]
    if len(curves) == 2:
        apart = max(abs(a - b) for a, b in zip(*curves, strict=True))
        change = tail(curves[1]) / tail(curves[0]) - 1
        lines.append(f"curve: bf16 ends {change:+.2%} from float32, at most {apart:.4f} apart at a step")
    failed = [job["label"] for job in jobs if "failed" in job]
    return [*lines, f"failed: {len(failed)} of {len(jobs)}: {'; '.join(failed)}"] if failed else lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON with every figure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: sees that everything runs")
    options = parser.parse_args()
    scale, chosen = (TINY_SCALE, few_jobs) if options.tiny else (Scale(), all_jobs)
    jobs = [job for job in chosen(scale) if job.part in options.parts]
    sides = Sides()
    try:
        report = measure(jobs, sides, options.repeats, scale.block_s, options.out, need_gpu=not options.tiny)
    finally:
        sides.close()
    for side, about in report["about"].items():
        print(f"{side}: {about}")
    if not report["jobs"]:
        sys.exit("no library here sees a GPU; --tiny sees on a CPU that everything runs")
    for job in report["jobs"]:
        print(line(job, report["product_flops_per_second"]))
    print("\n".join(["", *summary(report)]))
    ours = [job for job in report["jobs"] if job["side"] == "jax"]
    if ours and all("failed" in job for job in ours):
        sys.exit("nothing of ours ran: is selfpab_jax installed, or PYTHONPATH set to the repository?")


if __name__ == "__main__":
    main()
