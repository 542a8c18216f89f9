"""A checkpoint of the published size, there and back: errors, peak memory and time in one table.

    python benchmarks/convert_full_size.py [--folder DIR]      about 5 minutes, 3 GB of disk, needs PyTorch

Every stage is a process of its own, so that its peak memory is its own: the highest resident size (VmHWM, which
counts mapped pages of files) beyond what the interpreter holds once everything is imported.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

FEATURES, WIDTH, HEADS, FEEDFORWARD, LAYERS, STEP = 156, 1500, 6, 2048, 4, 1000
PUBLISHED_BYTES = 793_353_563
TOTAL = 20_000
PEAK_RATE = 1e-4


def write(folder: Path) -> dict[str, float]:
    """A file with the published names and shapes, weights as torch.nn draws them, moments at random."""
    import torch

    from selfpab_jax.convert.positions import build_tables
    from selfpab_jax.convert.table import torch_names

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, FEEDFORWARD, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
    ends = {"emb.lin_proj_layer": (FEATURES, WIDTH), "prediction_head.mlp.out_layer": (WIDTH, FEATURES)}
    tensors = {f"transformer_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    for name, (inputs, outputs) in ends.items():
        linear = torch.nn.Linear(inputs, outputs)
        tensors |= {f"{name}.{part}": tensor for part, tensor in linear.state_dict().items()}
    names = torch_names(LAYERS)
    tables = build_tables(torch, "AbsolutePositionalEncoding", WIDTH)
    moments = {
        number: {
            "step": torch.tensor(float(STEP)),
            "exp_avg": 1e-3 * torch.randn_like(tensors[name]),
            "exp_avg_sq": 1e-6 * torch.rand_like(tensors[name]),
        }
        for number, name in enumerate(names)
    }
    progress = (STEP + 1) / TOTAL / (0.07 + 1e-6)
    group = {
        "lr": (1 - progress) * PEAK_RATE / 100 + progress * PEAK_RATE,
        "betas": (0.9, 0.98),
        "eps": 1e-8,
        "weight_decay": 1e-5,
        "amsgrad": False,
        "params": list(moments),
    }
    schedule = {"initial_learning_rate": PEAK_RATE, "decay_steps": TOTAL, "end_learning_rate": PEAK_RATE / 100}
    args = {
        "batch_size": 64, "d_model": WIDTH, "dim_feedforward": FEEDFORWARD, "dim_prediction_head": None,
        "dropout": 0.1, "epochs": 50, "lr": "1e-4", "lr_scheduler": "LinearWUSchedule", "n_encoder_layers": LAYERS,
        "n_prediction_head_layers": 1, "nhead": HEADS, "optimizer": "AdamW", "output_activation": None,
        "positional_encoding": "AbsolutePositionalEncoding", "seq_operation": None, "weight_decay": "1e-5",
        "input_dim": FEATURES, "output_dim": FEATURES, "total_step_count": TOTAL, "_epochs": 50,
    }  # fmt: skip
    content = {
        "epoch": 3,
        "global_step": STEP,
        "pytorch-lightning_version": "1.6.4",
        "state_dict": OrderedDict((n, (tensors | tables)[n]) for n in [*names[:2], *tables, *names[2:]]),
        "optimizer_states": [{"state": moments, "param_groups": [group]}],
        "lr_schedulers": [{**schedule, "warmup": 0.07, "n_steps": STEP + 1}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"args": args},
    }
    torch.save(content, folder / "upstream_model.ckpt")
    for part in ("mean", "std"):
        (folder / f"{part}.csv").write_text("1.0\n" * FEATURES)
    return {"bytes": (folder / "upstream_model.ckpt").stat().st_size}


def load(folder: Path) -> dict[str, float]:
    import torch

    return measured(lambda: torch.load(folder / "upstream_model.ckpt", weights_only=True))


def load_mapped(folder: Path) -> dict[str, float]:
    import torch

    def read_weights() -> None:
        content = torch.load(folder / "upstream_model.ckpt", weights_only=True, mmap=True)
        for tensor in content["state_dict"].values():
            tensor.clone()

    return measured(read_weights)


def inspect(folder: Path) -> dict[str, float]:
    from selfpab_jax.convert.inspection import summarize

    return measured(lambda: summarize(folder / "upstream_model.ckpt"))


def from_torch(folder: Path) -> dict[str, float]:
    from selfpab_jax.convert.checkpoint import read_checkpoint
    from selfpab_jax.convert.from_torch import write_converted
    from selfpab_jax.convert.statistics import statistics_for

    def convert() -> None:
        checkpoint = read_checkpoint(folder / "upstream_model.ckpt")
        write_converted(checkpoint, folder / "model", statistics_for(checkpoint, folder))

    return measured(convert) | {"bytes": (folder / "model" / "model.safetensors").stat().st_size}


def run(folder: Path) -> dict[str, float]:
    from selfpab_jax.convert.checkpoint import read_checkpoint
    from selfpab_jax.convert.run import write_run
    from selfpab_jax.convert.statistics import statistics_for

    def convert() -> None:
        checkpoint = read_checkpoint(folder / "upstream_model.ckpt")
        write_run(checkpoint, folder / "run", statistics_for(checkpoint, folder))

    figures = measured(convert)
    size = (folder / "model" / "model.safetensors").stat().st_size
    return figures | {"bytes": 3 * size}  # the state: parameters and two moments


def to_torch(folder: Path) -> dict[str, float]:
    import torch  # noqa: F401  (its import is not part of the conversion)

    from selfpab_jax.convert.to_torch import write_torch

    return measured(lambda: write_torch(folder / "model", folder / "back.ckpt")) | {
        "bytes": (folder / "back.ckpt").stat().st_size
    }


def compare_bits(folder: Path) -> dict[str, float]:
    import torch

    paths = (folder / "upstream_model.ckpt", folder / "back.ckpt")
    before, after = (torch.load(path, weights_only=True, mmap=True)["state_dict"] for path in paths)
    assert list(before) == list(after)
    same = [before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before]
    return {"same": sum(same), "tensors": len(same)}


def verify(folder: Path, compute: str) -> dict[str, float]:
    from selfpab_jax.convert.verify import compare, open_model, random_windows

    paths = (folder / "model", folder / "upstream_model.ckpt")
    ours, theirs = (open_model(path, compute, None, attention=False) for path in paths)  # type: ignore[arg-type]
    differences = compare(ours, theirs, random_windows(ours, 1, 599, 0), None)
    return {each.layer: each.relative for each in differences}


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds, and peak resident bytes beyond those before the work (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
    before = resident("VmRSS")
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start, "peak": resident("VmHWM") - before}


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


STAGES: dict[str, Callable[[Path], dict[str, float]]] = {
    "write": write,
    "torch.load": load,
    "torch.load(mmap), weights": load_mapped,
    "convert inspect": inspect,
    "convert from-torch": from_torch,
    "convert from-torch --run": run,
    "convert to-torch": to_torch,
    "bits": compare_bits,
    "float32": lambda folder: verify(folder, "float32"),
    "bfloat16": lambda folder: verify(folder, "bfloat16"),
}


def main(folder: Path) -> None:
    figures = {}
    for stage in STAGES:
        command = [sys.executable, __file__, "--folder", str(folder), "--stage", stage]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{stage}: {done.stderr}")
        figures[stage] = json.loads(done.stdout.splitlines()[-1])
    size, published = figures["write"]["bytes"], f"published {PUBLISHED_BYTES:,}"
    print(f"file of {size:,.0f} bytes ({published}), optimizer state included")
    print(f"{'':<28} {'seconds':>8} {'peak MB':>8} {'of what is written':>19}")
    for stage in STAGES:
        if "peak" in figures[stage]:
            seconds, peak, written = (figures[stage].get(name, np.nan) for name in ("seconds", "peak", "bytes"))
            ratio = f"{peak / written:.2f} x {written / 1e6:,.0f} MB" if written == written else "-"
            print(f"{stage:<28} {seconds:8.2f} {peak / 1e6:8.0f} {ratio:>19}")
    print(f"there and back: {figures['bits']['same']:.0f} of {figures['bits']['tensors']:.0f} tensors bit-identical")
    print("largest error against torch.nn at 599 frames, relative to the largest output:")
    for part in figures["float32"]:
        print(f"  {part:<26} float32 {figures['float32'][part]:.1e}   bfloat16 {figures['bfloat16'][part]:.1e}")
    assert figures["convert from-torch"]["peak"] <= 1.3 * figures["convert from-torch"]["bytes"]
    assert figures["bits"]["same"] == figures["bits"]["tensors"]
    assert max(figures["float32"].values()) < 1e-4


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files go; a temporary folder where not given")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(STAGES[options.stage](options.folder)))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            main(Path(made))
