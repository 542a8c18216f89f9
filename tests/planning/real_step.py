"""Runs real steps on 8 CPU devices in a process of its own and prints what they hold and allocate, as JSON.

Arguments: the settings as JSON, the frames of a window.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jsonargparse import Namespace

from selfpab_jax.cli.plan import plan_parser
from selfpab_jax.config import settings_from
from selfpab_jax.model.functional import make_functional
from selfpab_jax.signal.normalization import Statistics
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.optimizer import adamw, learning_rate
from selfpab_jax.train.state import create_state, make_mesh
from selfpab_jax.train.step import Objective, stop_flags, to_devices, train_step

STATUS = Path("/proc/self/status")
FEATURES = 156


def status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def main(words: list[str], frames: int) -> None:
    parser = plan_parser()
    parsed: Namespace = parser.parse_args(words)
    settings = settings_from(parser, parsed, PretrainSettings)
    ones = np.ones(FEATURES, np.float32)
    functional = make_functional(settings.model, FEATURES, FEATURES)
    objective = Objective(functional, settings.task, Statistics(0 * ones, ones, "plain"), ("back", "thigh"), 6)
    schedule = learning_rate(settings.optimizer, 1000, settings.model.width)
    update = adamw(settings.optimizer, schedule)
    mesh = make_mesh(settings.mesh)
    step = train_step(objective, update, schedule, mesh, seed=0, accumulate=settings.optimizer.accumulate)
    state = create_state(functional, update, mesh, jax.random.key(0))
    size = settings.optimizer.batch_size
    batch = np.random.default_rng(0).random((size, frames, FEATURES)).astype(np.float16)
    spectrogram, stop = to_devices(mesh, batch, size), stop_flags(mesh, False)
    growth = []
    for _ in range(6):
        jax.block_until_ready((state, spectrogram))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is there now
        before = status("VmRSS")
        state, metrics = step(state, spectrogram, stop)
        jax.block_until_ready((state, metrics))
        growth.append(status("VmHWM") - before)
    held = {
        name: [sum(shard.data.nbytes for leaf in jax.tree.leaves(part) for shard in leaf.addressable_shards
                   if shard.device == device) for device in mesh.devices.flat]
        for name, part in (("parameters", state.parameters), ("optimizer", (state.optimizer, state.step)))
    }  # fmt: skip
    print(json.dumps({"growth": growth, "held": held}))


if __name__ == "__main__":
    main(sys.argv[2:], int(sys.argv[1]))
