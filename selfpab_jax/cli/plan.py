"""`selfpab-jax plan`."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.cli.pretrain import PretrainParser
from selfpab_jax.config import settings_from
from selfpab_jax.distributed.hardware import CHIPS, Chip
from selfpab_jax.errors import ConfigError
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.state import MESH_AXES, MeshSettings


class PlanParser(PretrainParser):
    """Takes `--mesh data=32,fsdp=8` where other commands take `--mesh.data 32 --mesh.fsdp 8`."""

    def parse_args(self, args: Sequence[str], **options: Any) -> Namespace:
        """Parse the command line."""
        words: list[str] = []
        for word in args:
            words += ["--meshes", *word.split("=", 1)[1:]] if re.match(r"--mesh(=|$)", word) else [word]
        return super().parse_args(words, **options)


def plan_parser() -> PlanParser:
    """Every field of `PretrainSettings`, and what the run is to be on."""
    parser = PlanParser(
        "plan",
        "Compile a run's training step for devices that are not there, and say what it needs: memory, traffic, time. "
        "--mesh data=32,fsdp=8 may be given several times.",
    )
    parser.add_argument("--config", action="config", help="YAML preset, e.g. configs/selfpab.yaml")
    parser.add_class_arguments(PretrainSettings)
    parser.add_argument(
        "--meshes", action="append", type=str, help="devices on each axis, e.g. data=32,fsdp=8 (--mesh is short)"
    )
    parser.add_argument("--chip", type=str, default="h100", help=f"one or more of {','.join(CHIPS)}")
    parser.add_argument("--hours", type=float, default=100_000.0, help="of recording in an epoch")
    parser.add_argument("--out", type=Path | None, default=None, help="JSON file for all figures")
    return parser


def run_plan(parsed: Namespace) -> int:
    """Run the command."""
    settings = settings_from(plan_parser(), parsed, PretrainSettings)
    chips = [_chip(name.strip()) for name in parsed.chip.split(",")]
    if not parsed.hours > 0:
        raise ConfigError(f"--hours is {parsed.hours}; it must be greater than 0")
    meshes = [mesh_of(text) for text in parsed.meshes or []] or [_told(settings.mesh)]
    from selfpab_jax.planning.compile import host_devices, windows_of
    from selfpab_jax.planning.report import describe, table
    from selfpab_jax.planning.roofline import ChipPlan, devices_of, on_chip, plan_step

    windows = windows_of(settings.data.path)
    host_devices(max(devices_of(mesh) for mesh in meshes))  # as many as the largest needs, before JAX starts
    plans: list[ChipPlan] = []
    for mesh in meshes:
        step = plan_step(replace(settings, mesh=mesh), windows)
        on_chips = [on_chip(step, chip, parsed.hours) for chip in chips]
        print(describe(step, on_chips), end="\n\n", flush=True)
        plans += on_chips
    if len(plans) > 1:
        print(table(plans))
    if parsed.out is not None:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        parsed.out.write_text(json.dumps([plan.as_json() for plan in plans], indent=1) + "\n", encoding="utf-8")
        print(f"all figures in {parsed.out}")
    return 0


def mesh_of(text: str) -> MeshSettings:
    """The mesh that `data=32,fsdp=8` names; an axis that is not named has one device.

    Raises:
        ConfigError: it is written otherwise.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = (word.strip() for word in part.partition("="))
        if axis not in MESH_AXES or axis in sizes or not re.fullmatch(r"[1-9]\d{0,8}", size):
            raise ConfigError(f"--mesh {text}: write it as data=32,fsdp=8,tensor=1, each axis once, from 1 device")
        sizes[axis] = int(size)
    return MeshSettings(**{axis: sizes.get(axis, 1) for axis in MESH_AXES})


def _told(mesh: MeshSettings) -> MeshSettings:
    """The mesh of the settings, of which -1 is one device: nobody said that there are more."""
    return MeshSettings(**{axis: max(size, 1) for axis, size in vars(mesh).items()})


def _chip(name: str) -> Chip:
    if name not in CHIPS:
        near = difflib.get_close_matches(name.lower(), CHIPS, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"--chip {name}: no such chip; {hint}There are {', '.join(CHIPS)}")
    return CHIPS[name]
