"""`selfpab-jax plan`."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.cli.pretrain import PretrainParser
from selfpab_jax.config import settings_from
from selfpab_jax.distributed.hardware import CHIPS, Chip
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.io import write_json
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MESH_AXES, MeshSettings


class PlanParser(PretrainParser):
    """Accepts `--mesh data=32,fsdp=8` in place of `--mesh.data 32 --mesh.fsdp 8`, several times."""

    def parse_args(self, args: Sequence[str], **options: Any) -> Namespace:
        """Parse the command line."""
        words: list[str] = []
        for word in args:
            words += ["--meshes", *word.split("=", 1)[1:]] if re.match(r"--mesh(=|$)", word) else [word]
        return super().parse_args(words, **options)


def plan_parser() -> PlanParser:
    """Every field of `PretrainSettings`, the meshes and the chips."""
    parser = PlanParser(
        "plan",
        "Compile the training step of a run for devices that this machine does not have, and print its memory, traffic "
        "and time. --mesh data=32,fsdp=8 may be given several times.",
    )
    parser.add_argument("--config", action="config", help="YAML preset, e.g. configs/selfpab.yaml")
    parser.add_class_arguments(PretrainSettings)
    parser.add_argument(
        "--meshes", action="append", type=str, help="devices along each axis, e.g. data=32,fsdp=8 (short: --mesh)"
    )
    parser.add_argument("--chip", type=str, default="h100", help=f"one or more of {','.join(CHIPS)}")
    parser.add_argument("--hours", type=float, default=100_000.0, help="hours of recording in an epoch")
    parser.add_argument("--out", type=Path | None, default=None, help="JSON file for all figures")
    return parser


def run_plan(parsed: Namespace) -> int:
    """Run the command."""
    settings = settings_from(plan_parser(), parsed, PretrainSettings)
    chips = [_chip(name.strip()) for name in parsed.chip.split(",")]
    if not parsed.hours > 0:
        raise ConfigError(f"--hours is {parsed.hours}; it must be greater than 0")
    meshes = [mesh_of(text) for text in parsed.meshes or []] or [_without_unknown(settings.mesh)]
    from selfpab_jax.planning.compile import host_devices, windows_of
    from selfpab_jax.planning.report import describe, table
    from selfpab_jax.planning.roofline import ChipPlan, devices_of, on_chip, plan_step

    windows = windows_of(settings.data.path)
    host_devices(max(devices_of(mesh) for mesh in meshes))  # as many as the largest mesh needs, before JAX starts
    plans: list[ChipPlan] = []
    for mesh in meshes:
        step = plan_step(replace(settings, mesh=mesh), windows)
        on_chips = [on_chip(step, chip, parsed.hours) for chip in chips]
        print(describe(step, on_chips), end="\n\n", flush=True)
        plans += on_chips
    if len(plans) > 1:
        print(table(plans))
    if parsed.out is not None:
        write_json(parsed.out, [plan.as_json() for plan in plans])
        print(f"all figures are in {parsed.out}")
    return ExitCode.OK


def mesh_of(text: str) -> MeshSettings:
    """The mesh of `data=32,fsdp=8`; an axis that is not named has one device.

    Raises:
        ConfigError: the text is not of this form.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (word.strip() for word in part.partition("="))
        if axis not in MESH_AXES or axis in sizes or not re.fullmatch(r"[1-9]\d{0,8}", size):
            raise ConfigError(f"--mesh {text}: write it as data=32,fsdp=8,tensor=1, each axis once, from 1 device")
        sizes[axis] = int(size)
    return MeshSettings(**{axis: sizes.get(axis, 1) for axis in MESH_AXES})


def _without_unknown(mesh: MeshSettings) -> MeshSettings:
    """The mesh of the settings with one device in place of -1, because the number of devices is unknown."""
    return MeshSettings(**{axis: max(size, 1) for axis, size in vars(mesh).items()})


def _chip(name: str) -> Chip:
    if name not in CHIPS:
        near = difflib.get_close_matches(name.lower(), CHIPS, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"--chip {name}: unknown chip; {hint}Choose from {', '.join(CHIPS)}")
    return CHIPS[name]
