"""The downstream measurement of a run: its model, exported, under a probe."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpab_jax.evaluation.export import export_run


def downstream_of_run(run: Path, probe_section: Mapping[str, Any]) -> float:
    """Macro-F1 of a run's best checkpoint; the model goes into RUN/model, the probe's report into RUN/probe."""
    model, out = run / "model", run / "probe"
    export_run(run, model, overwrite=model.exists())
    macro_f1 = downstream(model, probe_section, out)
    shutil.rmtree(out / "cache", ignore_errors=True)  # features of all recordings, for every run
    return macro_f1


def downstream(model_directory: Path, probe_section: Mapping[str, Any], out: Path) -> float:
    """Probe a model and tell one figure.

    Args:
        model_directory: an exported model.
        probe_section: of the sweep: `config`, a preset of `selfpab-jax probe`, and `data`, its recordings.
        out: where the probe's report goes; results there are replaced.

    Returns:
        Macro-F1 of the report's headline: the mean over test subjects and seeds, 0 to 1.

    Raises:
        ConfigError, DataError, ModelError: what the probe cannot do.
    """
    from selfpab_jax.cli.probe import probe_parser, run_probe
    from selfpab_jax.probe.result_files import load

    words = ["--config", str(probe_section["config"]), "--model", str(model_directory)]
    words += ["--data", str(probe_section["data"]), "--out", str(out), "--overwrite"]
    run_probe(probe_parser().parse_args(words))
    return load(out).headline.summary.macro_f1.mean
