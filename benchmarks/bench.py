"""The figures that a change may make worse, in one table, compared with the last ones kept for this kind of machine.

    make bench          or     python benchmarks/bench.py [--parts step compile data embed] [--save]

- `step`: training step and forward pass of the published size in float32 against torch.nn, and their share of the
  matrix-product rate (`training_step.py`).
- `compile`: seconds to compile that step, and the memory it needs beside its arguments at three batch sizes.
- `data`: ingest and loader (`ingest.py`), and the share of the time that training would wait for data if a step of 64
  windows took as long as on an H100 at 60% of its matrix-product rate.
- `embed`: recordings on disk to features on disk, against the encoder's forward pass alone.

`--save` keeps the figures in `benchmarks/results/<machine kind>.json`; that file is committed. A machine kind is a
processor, its cores and its widest vector instructions: figures are compared only with those of the same kind, because
matrix products with AVX-512 are more than twice as fast as without. Less than 12 minutes on 2 quiet cores. Single times
vary by 10 to 20% on shared machines; look at ratios first. `make bench` sets GLIBC_TUNABLES for huge pages.
"""

import argparse
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import bench_data
import bench_program
import training_step

from selfpab_jax.io import write_json

RESULTS = Path(__file__).parent / "results"
CPU_INFO = Path("/proc/cpuinfo")
INSTRUCTION_SETS = {"avx2": "avx2", "avx512f": "avx512"}
"""Flag of /proc/cpuinfo -> name; wider ones last."""


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        name: what is measured; the same from one version to the next.
        value: the figure.
        unit: its unit.
        more_is_better: whether a larger value is better.
        aim: the target, if there is one.
    """

    name: str
    value: float
    unit: str
    more_is_better: bool = True
    aim: float | None = None


def step_figures() -> Iterator[Figure]:
    found = training_step.compare(batch=4, repeats=5)
    product = found.pop("product")
    yield Figure("matrix product, ours", product.ours_flops / 1e9, "GFLOP/s")
    yield Figure("matrix product, ours / torch", product.ratio, "x")
    for job, it in found.items():
        yield Figure(f"{job}, torch / ours", it.ratio, "x", aim=2.0)
        yield Figure(f"{job}, share of the product", 100 * it.ours_flops / product.ours_flops, "%", aim=75.0)
        yield Figure(f"{job}, torch's share of its product", 100 * it.torch_flops / product.torch_flops, "%")
        yield Figure(f"{job}, batch 4", it.ours_s, "s", more_is_better=False)


def compile_figures() -> Iterator[Figure]:
    compiled = bench_program.compiled_step((1, 2, 4))
    yield Figure("compiling the step, batch 4", compiled[4].seconds, "s", more_is_better=False)
    for batch, it in compiled.items():
        yield Figure(f"memory beside the arguments, batch {batch}", it.memory_mb, "MB", more_is_better=False)


def data_figures() -> Iterator[Figure]:
    found = bench_data.measure()
    yield Figure("ingest", found.ingest_hours, "h a core-hour", aim=40_000.0)
    yield Figure("loader", found.loader_mb_s, "MB/s")
    yield Figure("waiting for data at an H100's rate", 100 * found.waiting_share, "%", more_is_better=False, aim=2.0)
    yield Figure("what that rate needs", found.needed_mb_s, "MB/s", more_is_better=False)


def embed_figures() -> Iterator[Figure]:
    found = bench_program.embedding()
    yield Figure("embed, file to file", found.hours_s * 3600, "h an hour")
    yield Figure("embed, share of the forward pass alone", 100 * found.hours_s / found.bare_hours_s, "%")


PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "step": step_figures,
    "compile": compile_figures,
    "data": data_figures,
    "embed": embed_figures,
}


def instruction_sets(cpu_info: str) -> list[str]:
    """The vector instruction sets that decide the rate of matrix products, from the text of /proc/cpuinfo."""
    flags = re.search(r"^flags\s*: (.*)$", cpu_info, re.MULTILINE)
    available = flags.group(1).split() if flags else []
    return [name for flag, name in INSTRUCTION_SETS.items() if flag in available]


def machine_kind(cpu_info: str) -> str:
    """Processor, cores and widest vector instructions: figures of one kind are comparable."""
    model = re.search(r"^model name\s*: (.*)$", cpu_info, re.MULTILINE)
    processor = model.group(1) if model else platform.machine()
    widest = (instruction_sets(cpu_info) or [""])[-1]
    return re.sub(r"[^a-z0-9]+", "-", f"{processor} {len(os.sched_getaffinity(0))} cores {widest}".lower()).strip("-")


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the figures."""
    found = {}
    for name in ("jax", "torch", "numpy", "grain"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def kept(path: Path, sets: list[str]) -> dict[str, Figure]:
    """The figures that were kept last, by name; none if they come from other instruction sets."""
    if not path.exists():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    if report["instruction_sets"] != sets:
        return {}
    return {entry["name"]: Figure(**entry) for entry in report["figures"]}


def save(path: Path, figures: list[Figure], sets: list[str]) -> None:
    """Keep these figures; those of parts that were not measured stay."""
    merged = {**kept(path, sets), **{figure.name: figure for figure in figures}}
    report = {
        "versions": versions(),
        "instruction_sets": sets,
        "figures": [asdict(figure) for figure in merged.values()],
    }
    write_json(path, report)


def line(figure: Figure, before: Figure | None) -> str:
    """A line of the table."""
    text = f"{figure.name:<44} {figure.value:>10.4g} {figure.unit:<14}"
    if figure.aim is not None:
        met = figure.value >= figure.aim if figure.more_is_better else figure.value <= figure.aim
        text += f"aim {figure.aim:>8g} {'met' if met else '   '}  "
    else:
        text += " " * 18
    if before is None:
        return f"{text}new"
    change = figure.value / before.value - 1 if before.value else 0.0
    worse = change < 0 if figure.more_is_better else change > 0
    verdict = "" if abs(change) < 0.02 else " worse" if worse else " better"
    return f"{text}was {before.value:>9.4g}  {change:+6.1%}{verdict}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--save", action="store_true", help="keep the figures for the next comparison")
    parser.add_argument("--results", type=Path, default=RESULTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cpu_info = CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.exists() else ""
    kind, sets = machine_kind(cpu_info), instruction_sets(cpu_info)
    path = options.results / f"{kind}.json"
    before = kept(path, sets)
    print(f"{kind}; {', '.join(f'{name} {number}' for name, number in versions().items())}", flush=True)
    figures = []
    for part in options.parts:
        for figure in PARTS[part]():
            figures.append(figure)
            print(line(figure, before.get(figure.name)), flush=True)
    if options.save:
        save(path, figures, sets)
        print(f"kept in {path}")


if __name__ == "__main__":
    main()
