"""`selfpab-jax pretrain`."""

import os
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.config import Parser
from selfpab_jax.errors import ConfigError
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.run_dir import SETTINGS_FILE

STOPPED_AND_SAVED = 75  # EX_TEMPFAIL: start the same command again with --resume


class PretrainParser(Parser):
    """Knows presets by name, and the settings that a resumed run brings itself."""

    def parse_args(self, args: Sequence[str], **options: Any) -> Namespace:
        """Parse the command line after filling in `--config`."""
        return super().parse_args(_with_config(args), **options)


def pretrain_parser() -> PretrainParser:
    """Every field of `PretrainSettings`, and where the run goes."""
    parser = PretrainParser("pretrain", "Pre-train an encoder by masked reconstruction of spectrogram records.")
    parser.add_argument("--config", action="config", help="YAML preset, e.g. configs/selfpab.yaml")
    parser.add_class_arguments(PretrainSettings)
    parser.add_argument("--run", type=Path, help="directory of the run: settings, log, checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on with RUN, or start it if it is new")
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    return parser


def run_pretrain(parsed: Namespace) -> int:
    """Run the command."""
    settings = settings_of(pretrain_parser(), parsed)
    if parsed.run is None:
        raise ConfigError("--run is missing: say where the run goes, e.g. --run runs/first")
    from selfpab_jax.distributed.init import this_process
    from selfpab_jax.train.loop import pretrain as train

    try:
        ending = train(settings, parsed.run, resume=parsed.resume, overwrite=parsed.overwrite)
    except Exception as error:
        if this_process() is None:
            raise
        # The usual way out waits for the other processes, which wait for this one.
        print(f"selfpab-jax: process {this_process()}: {error}", file=sys.stderr, flush=True)
        os._exit(2 if isinstance(error, ConfigError) else 1)
    if ending != "interrupted":
        return 0
    print(f"selfpab-jax: stopped and saved; --resume goes on: {parsed.run}", file=sys.stderr)
    return STOPPED_AND_SAVED


def settings_of(parser: Parser, parsed: Namespace) -> PretrainSettings:
    """The settings as dataclasses, checked.

    Raises:
        ConfigError: a value makes no sense.
    """
    try:
        fields = parser.instantiate(parsed).as_dict()
    except ValueError as error:
        raise ConfigError(str(error)) from None
    names = PretrainSettings.__dataclass_fields__
    return PretrainSettings(**{name: value for name, value in fields.items() if name in names})


def _with_config(arguments: Sequence[str]) -> list[str]:
    words = []
    for argument in arguments:
        words += argument.split("=", 1) if argument.startswith(("--config=", "--run=")) else [argument]
    if "--config" in words:
        at = words.index("--config") + 1
        if at < len(words):
            words[at] = str(_preset(Path(words[at])))
        return words
    if "--resume" in words and "--run" in words[:-1]:
        settings = Path(words[words.index("--run") + 1]) / SETTINGS_FILE
        if settings.exists():
            return ["--config", str(settings), *words]
    return words


def _preset(path: Path) -> Path:
    shipped = Path(str(resources.files("selfpab_jax.configs"))) / path.with_suffix(".yaml").name
    return shipped if not path.exists() and shipped.exists() else path
