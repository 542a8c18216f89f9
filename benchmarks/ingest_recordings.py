"""Speed and memory of `records build --source recordings` on CSV, Parquet and .cwa files of any length.

    python benchmarks/ingest_recordings.py [--parts csv cwa week] [--folder DIR]

csv, cwa: files of six hours (six channels, or the three of a device, at 100 Hz) built by 1 and 2 processes, start of
the program included: hours of recording an hour of processor time and of the clock, and the largest process. week: one
Parquet file and one CSV file of a week of six channels at 100 Hz, against one of a day: peak memory must not follow.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from device_writers import START, seconds, write_cwa

RATE = 100
HOUR = 3600 * RATE
ONE_SUBJECT = ("--validation", "0", "--test", "0")
CHANNELS = ("back_x", "back_y", "back_z", "thigh_x", "thigh_y", "thigh_z")


def movement(samples: int, channels: int, seed: int) -> np.ndarray:
    """Gravity, a step frequency that comes and goes, and noise."""
    rng, t = np.random.default_rng(seed), np.arange(samples) / RATE
    walk = (np.sin(2 * np.pi * t / 600) > 0) * np.sin(2 * np.pi * 1.9 * t)
    signal = 0.3 * walk[:, None] + rng.normal(0, 0.03, (samples, channels))
    signal[:, ::3] -= 1
    return signal.astype(np.float32)


def hour_tables(hours: int, seed: int) -> Iterator[pa.Table]:
    """An hour at a time, so that this script needs no more memory than what it measures."""
    for hour in range(hours):
        signal = movement(HOUR, len(CHANNELS), 1000 * seed + hour)
        start = np.datetime64(START, "ms") + np.timedelta64(hour, "h")
        columns = {"timestamp": pa.array(start + (1000 // RATE * np.arange(HOUR)).astype("timedelta64[ms]"))}
        yield pa.table(columns | {name: np.round(signal[:, i], 4) for i, name in enumerate(CHANNELS)})


def write_table(path: Path, hours: int, seed: int = 0) -> None:
    writer = None
    for table in hour_tables(hours, seed):
        kind = pyarrow.csv.CSVWriter if path.suffix == ".csv" else pyarrow.parquet.ParquetWriter
        writer = writer or kind(str(path), table.schema)
        writer.write_table(table)
    writer.close()


def write_device(path: Path, hours: int, seed: int) -> None:
    counts = np.round(movement(hours * HOUR, 3, seed) * 256).astype(int).clip(-512, 511)
    blocks = len(counts) // 120
    write_cwa(path, counts[: blocks * 120], [seconds(START) + 1.2 * block for block in range(blocks)])


def build(recordings: Path, out: Path, workers: int, *options: str) -> tuple[float, float, float]:
    """Seconds on the clock, of processors, and the largest process's MB."""
    words = ["records", "build", "--source", "recordings", "--out", str(out), "--workers", str(workers), *options]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2);"
        "use = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(use.ru_utime + use.ru_stime, use.ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "selfpab_jax.cli.main", *words, str(recordings)]
    start = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, peak = map(float, done.stdout.split())
    return time.perf_counter() - start, cpu, peak


def speed(folder: Path, kind: str, files: int = 4, hours: int = 6) -> None:
    recordings = folder / kind
    recordings.mkdir()
    for number in range(files):
        path = recordings / f"P{number}.{kind}"
        write_table(path, hours, number) if kind == "csv" else write_device(path, hours, number)
    options = ("--rate", str(RATE), *(("--sensors", "back") if kind == "cwa" else ()))
    for workers in (1, 2):
        clock, cpu, peak = build(recordings, folder / f"{kind}_{workers}", workers, *options)
        print(
            f"{kind:8} {files} x {hours} h, {workers} processes: {files * hours / cpu * 3600:6.0f} h a core-hour, "
            f"{files * hours / clock * 3600:6.0f} h an hour on the clock, peak {peak:.0f} MB",
            flush=True,
        )


def memory(folder: Path) -> None:
    for kind in ("parquet", "csv"):
        for hours in (24, 168):
            recordings = folder / f"{kind}_{hours}"
            recordings.mkdir()
            write_table(recordings / f"P1.{kind}", hours)
            clock, cpu, peak = build(recordings, folder / f"out_{kind}_{hours}", 1, *ONE_SUBJECT, "--rate", str(RATE))
            size = sum(path.stat().st_size for path in recordings.iterdir()) / 1e9
            print(
                f"{kind:8} {hours:4} h in one file of {size:.1f} GB: {hours / cpu * 3600:6.0f} h a core-hour, "
                f"{clock:.0f} s, peak {peak:.0f} MB",
                flush=True,
            )
            for path in recordings.iterdir():
                path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["csv", "cwa", "week"], choices=["csv", "cwa", "week"])
    parser.add_argument("--folder", type=Path, help="where to work (about 15 GB for the week)")
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = "cpu"
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        for part in arguments.parts:
            memory(Path(name)) if part == "week" else speed(Path(name), part)


if __name__ == "__main__":
    main()
