"""Speed and memory of ingest and loader, on synthetic files in the HUNT4 layout.

    python benchmarks/ingest.py [--files 1000 4000] [--folder DIR]

Ingest: 5-minute windows of 6 channels a second and core, from npz files on disk to finished shards (one process, one
thread, its start not counted). Loader: MB a second of shuffled batches of 64 with two threads. Peak memory is that of a
process of its own for each number of files; the files are links to 24 different ones.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from selfpab_jax.data.records.build import Runner, build_spec
from selfpab_jax.data.records.shards import build_shard
from selfpab_jax.data.records.spec import BuildSpec, read_shards, write_plan
from selfpab_jax.data.sources.hunt4 import Hunt4
from selfpab_jax.data.sources.synthetic import recordings
from selfpab_jax.data.splits import SplitSettings

DIFFERENT = 24
WINDOW_HOURS = 300 / 3600


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_files(folder: Path, files: int) -> Path:
    """Hard links to a few different files: as many to open and read as asked for, little disk."""
    originals = [folder / f"original_{i}.npz" for i in range(DIFFERENT)]
    for i, path in enumerate(originals):
        if not path.exists():
            np.savez(path, arr_0=next(recordings(i, 1, 0))[1])
    root = folder / f"files_{files}"
    for i in range(files):
        subject = root / f"S{i // 168:05d}"
        subject.mkdir(parents=True, exist_ok=True)
        os.link(originals[i % DIFFERENT], subject / f"2024-01-{1 + i % 168 // 24:02d}_{i % 24:02d}.npz")
    return root


def ingest(root: Path, staging: Path) -> dict[str, float]:
    """The work of one worker process, here in this one."""
    spec = BuildSpec(Hunt4((str(root),)), splits=SplitSettings(by="recording"))
    write_plan(spec, staging)
    shards = read_shards(staging)
    build_shard(spec, staging, shards[-1])
    start, cpu, windows = time.perf_counter(), time.process_time(), 0
    for shard in shards[:-1]:
        build_shard(spec, staging, shard)
        windows += shard.files
    return {
        "windows": windows,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_mb(),
    }


def load(out: Path, batches_read: int = 60) -> dict[str, float]:
    from selfpab_jax.data.loader import batches
    from selfpab_jax.data.records.dataset import open_records

    records = open_records(out)
    source = records.source("train")
    stream = batches(
        source, np.arange(len(source)), seed=0, batch_size=64, first_step=0, last_step=batches_read + 1, threads=2
    )
    next(stream)
    start = time.perf_counter()
    size = sum(batch["spectrogram"].nbytes for batch in stream)
    return {"mb_per_second": size / 1e6 / (time.perf_counter() - start), "peak_mb": peak_mb()}


def in_own_process(step: str, *paths: Path) -> dict[str, float]:
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--step", step, "--paths", *map(str, paths)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--folder", type=Path, help="where to work (about 0.4 MB a file)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--paths", type=Path, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps({"ingest": ingest, "load": load}[arguments.step](*arguments.paths)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for files in arguments.files:
            root = make_files(folder, files)
            done = in_own_process("ingest", root, folder / f"staging_{files}")
            rate = done["windows"] / done["cpu_seconds"]
            print(
                f"ingest  {files:>6} files: {rate:6.0f} windows/s/core, {rate * WINDOW_HOURS * 3600:8.0f} hours of "
                f"recording a core-hour, {done['windows'] / done['seconds']:.0f} windows/s on the clock, "
                f"peak {done['peak_mb']:.0f} MB"
            )
            out = folder / f"records_{files}"
            build_spec(BuildSpec(Hunt4((str(root),)), splits=SplitSettings(by="recording")), out, Runner(workers=2))
            done = in_own_process("load", out)
            print(f"loader  {files:>6} files: {done['mb_per_second']:6.0f} MB/s, peak {done['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
