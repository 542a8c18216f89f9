"""Memory and time of LTA2V's training step at the published size, against the length of the window.

    python benchmarks/long_windows.py [--frames 900 1800 3599] [--batch 1] [--run 3599]

Each line is a process of its own: the step of `configs/lta2v.yaml` in float32, compiled for this machine's CPU, with
attention in blocks and whole; MB of temporaries as compiled. `--run` then takes one step at that length: seconds, and
the peak of the process, parameters and AdamW's moments included.
"""

import argparse
import multiprocessing
import resource
import time
from dataclasses import replace

FEATURES = 9006


def compiled(frames: int, batch: int, attention: str, run: bool) -> str:
    """One line of the table."""
    import jax
    import numpy as np

    from selfpab_jax.config import load_settings
    from selfpab_jax.planning.compile import WindowShape, lower
    from selfpab_jax.signal.calendar import frame_timestamps
    from selfpab_jax.signal.stft import SpectrogramSettings
    from selfpab_jax.train.config import PretrainSettings
    from selfpab_jax.train.optimizer import adamw, learning_rate
    from selfpab_jax.train.state import create_state
    from selfpab_jax.train.step import frame_info, stop_flags, to_devices

    settings = load_settings(PretrainSettings, "lta2v", {"model": {"compute": "float32", "attention": attention}})
    settings = replace(settings, optimizer=replace(settings.optimizer, batch_size=batch))
    begin = time.perf_counter()
    step = lower(settings, WindowShape(frames=frames, features=FEATURES, seconds=108000.0), jax.devices("cpu")[:1])
    program = step.lowered.compile()
    seconds, memory = time.perf_counter() - begin, program.memory_analysis()
    line = f"{frames:6} frames, batch {batch}, attention {attention:7} {memory.temp_size_in_bytes / 1e6:9,.0f} MB"
    line += f" of temporaries, compiled in {seconds:.0f} s"
    if not run:
        return line
    optimizer = settings.optimizer
    update = adamw(optimizer, learning_rate(optimizer, 100_000, settings.model.width))
    state = create_state(step.objective.functional, update, step.mesh, jax.random.key(0))
    spectrogram = np.random.default_rng(0).random((batch, frames, FEATURES), np.float32).astype(np.float16)
    times = frame_timestamps(np.zeros(batch, np.int64), frames, SpectrogramSettings(50.0, 3000, 1500))
    with jax.set_mesh(step.mesh):
        inputs = to_devices(step.mesh, spectrogram, batch), stop_flags(step.mesh, False)
        info = frame_info(step.mesh, {"timestamps": times}, batch)
        begin = time.perf_counter()
        jax.block_until_ready(program(state, *inputs, info))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return line + f"; one step {time.perf_counter() - begin:.0f} s, peak of the process {peak:.1f} GB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="*", default=[900, 1800, 3599])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--run", type=int, default=3599)
    options = parser.parse_args()
    wanted = [(frames, way, False) for way in ("blocks", "full") for frames in options.frames]
    wanted += [(options.run, "blocks", True)] if options.run else []
    for frames, way, run in wanted:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(compiled, (frames, options.batch, way, run)), flush=True)


if __name__ == "__main__":
    main()
