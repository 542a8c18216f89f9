"""Figures of a run while it runs: loss, hours seen, samples and FLOP a second, share of waiting, time left."""

import time

import numpy as np

from selfpab_jax.distributed.hardware import peak_flops
from selfpab_jax.train.logging import Log, ProgressLine, duration
from selfpab_jax.train.setup import Plan
from selfpab_jax.train.step import StepMetrics


class Meter:
    """Reads steps, writes log lines and progress lines.

    Args:
        plan: of the run.
        batch_size: samples a step.
        window_hours: hours of recording in a sample.
        log: for programs.
        progress: for people.
        every_steps: steps a log line.
    """

    def __init__(
        self, plan: Plan, batch_size: int, window_hours: float, log: Log, progress: ProgressLine, every_steps: int
    ):
        self._plan, self._batch_size, self._window_hours = plan, batch_size, window_hours
        self._log, self._progress, self._every_steps = log, progress, every_steps
        peak = peak_flops(plan.mesh.devices.flat[0].device_kind)
        self._peak = peak * plan.mesh.size if peak else None
        self._losses: list[float] = []
        self._validation = ""
        self._rates: dict[str, float] = {}
        self._since: float | None = None  # None until the first step is done: it compiles
        self._steps, self._waited = 0, 0.0

    def waited(self, seconds: float) -> None:
        """Time that the loop stood still for its next batch."""
        self._waited += seconds

    def skip_pause(self) -> None:
        """Start a new stretch of timing after a pause for validation or a checkpoint."""
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def read(self, step: int, loss: float, metrics: StepMetrics) -> None:
        """Take in a step that is done."""
        self._losses.append(loss)
        if self._since is None:
            self.skip_pause()
        else:
            self._steps += 1
            self._measure()
        if step % self._every_steps == 0 or step == self._plan.steps:
            self._log.write(
                {
                    "event": "train",
                    "step": step,
                    "loss": loss,
                    "mean_loss": float(np.mean(self._losses)),
                    "gradient_norm": float(metrics.gradient_norm),
                    "learning_rate": float(metrics.learning_rate),
                    "hours_seen": self._hours(step),
                    **{name: float(f"{value:.6g}") for name, value in self._rates.items()},
                }
            )
            self._losses.clear()
        if self._progress.due():
            self._progress.show(self._line(step, loss))

    def validated(self, step: int, loss: float, best: float) -> None:
        """Take in a held-out loss."""
        self._log.write({"event": "validation", "step": step, "loss": loss, "best": best})
        self._validation = f"  held-out {loss:.4f} (best {best:.4f})"
        self._progress.say(f"step {step}/{self._plan.steps}{self._validation}")

    def _hours(self, step: int) -> float:
        return step * self._batch_size * self._window_hours

    def _measure(self) -> None:
        elapsed = time.perf_counter() - self._since if self._since else 0.0
        if not self._steps or elapsed <= 0:
            return
        samples = self._steps * self._batch_size / elapsed
        self._rates = {
            "samples_per_second": samples,
            "model_flops_per_second": samples * self._plan.flops,
            "waiting_share": min(self._waited / elapsed, 1.0),
        }
        if self._peak:
            self._rates["mfu"] = samples * self._plan.flops / self._peak

    def _line(self, step: int, loss: float) -> str:
        parts = [f"step {step}/{self._plan.steps}", f"loss {loss:.4f}", f"{self._hours(step):,.1f} h seen"]
        if self._rates:
            left = (self._plan.steps - step) * self._batch_size / self._rates["samples_per_second"]
            parts += [
                f"{self._rates['samples_per_second']:,.1f} samples/s",
                f"{self._rates['model_flops_per_second'] / 1e12:,.3g} TFLOP/s",
                *([f"MFU {self._rates['mfu']:.0%}"] if "mfu" in self._rates else []),
                f"waits {self._rates['waiting_share']:.0%}",
                f"{duration(left)} left",
            ]
        return "  ".join(parts) + self._validation
