"""`selfpab-jax pretrain`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from selfpab_jax.config import Parser, settings_from
from selfpab_jax.errors import ConfigError, ExitCode
from selfpab_jax.train.config import PretrainSettings
from selfpab_jax.train.run_dir import SETTINGS_FILE


class PretrainParser(Parser):
    """Knows that a resumed run brings its own settings."""

    def parse_args(self, args: Sequence[str] | None = None, **options: Any) -> Namespace:
        """Parse the command line, with the settings of the run under what is given."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_args([*_settings_of_the_run(words), *words], **options)


def pretrain_parser() -> PretrainParser:
    """Every field of `PretrainSettings`, and where the run goes."""
    parser = PretrainParser("pretrain", "Pre-train an encoder by masked reconstruction of spectrogram records.")
    parser.add_argument("--config", action="config", help="YAML file or preset, e.g. configs/selfpab.yaml")
    parser.add_class_arguments(PretrainSettings)
    parser.add_argument("--run", type=Path, help="directory of the run: settings, log, checkpoints")
    parser.add_argument("--resume", action="store_true", help="continue RUN, or start it if it is new")
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    return parser


def run_pretrain(parsed: Namespace) -> int:
    """Run the command."""
    settings = settings_from(pretrain_parser(), parsed, PretrainSettings)
    if parsed.run is None:
        raise ConfigError("--run is missing: give the directory of the run, e.g. --run runs/first")
    import jax

    from selfpab_jax.train.loop import pretrain

    try:
        ending = pretrain(settings, parsed.run, resume=parsed.resume, overwrite=parsed.overwrite)
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        # A normal exit would wait for the other processes, which wait for this one.
        print(f"selfpab-jax: process {jax.process_index()}: {error}", file=sys.stderr, flush=True)
        os._exit(ExitCode.USAGE if isinstance(error, ConfigError) else ExitCode.FAILED)
    if ending != "interrupted":
        return ExitCode.OK
    print(f"selfpab-jax: stopped, everything is saved; --resume continues {parsed.run}", file=sys.stderr)
    return ExitCode.STOPPED


def _settings_of_the_run(words: list[str]) -> list[str]:
    """`--config` with the settings of the run that is resumed, where no other is given."""
    given = [word.split("=", 1)[0] for word in words]
    if "--resume" not in given or "--config" in given or "--run" not in given:
        return []
    place = given.index("--run")
    run = words[place].split("=", 1)[1] if "=" in words[place] else "".join(words[place + 1 : place + 2])
    settings = Path(run) / SETTINGS_FILE
    return ["--config", str(settings)] if settings.is_file() else []
