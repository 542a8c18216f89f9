"""SelfPAB in JAX: masked-reconstruction pre-training on body-worn accelerometers.

Each command of `selfpab-jax` is a function here, with the same settings:

    records build   build_records       embed          embed, load_encoder, SelfPABFeatures
    pretrain        pretrain            probe          probe_encoder
    evaluate        evaluate            predict        predict, load_head
    export          export_run          scaling fit    fit_scaling_laws
    (a recording)   read_recording

`load_settings` makes settings from presets, YAML files and nested values.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from selfpab_jax.config import load_settings
    from selfpab_jax.data.records.build import build_records
    from selfpab_jax.data.records.settings import BuildSettings
    from selfpab_jax.data.sources.streaming import read_recording
    from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
    from selfpab_jax.features.sklearn import SelfPABFeatures
    from selfpab_jax.features.streaming import embed
    from selfpab_jax.probe.config import ProbeSettings
    from selfpab_jax.probe.heads.saved import SavedHead, load_head
    from selfpab_jax.probe.predict.run import predict
    from selfpab_jax.probe.run import probe_encoder
    from selfpab_jax.scaling.report import fit_scaling_laws
    from selfpab_jax.train.config import PretrainSettings
    from selfpab_jax.train.evaluate import evaluate
    from selfpab_jax.train.export import export_run
    from selfpab_jax.train.loop import pretrain

_MODULE_OF = {
    "BuildSettings": "data.records.settings",
    "PretrainSettings": "train.config",
    "PretrainedEncoder": "features.encoder",
    "ProbeSettings": "probe.config",
    "SavedHead": "probe.heads.saved",
    "SelfPABFeatures": "features.sklearn",
    "build_records": "data.records.build",
    "embed": "features.streaming",
    "evaluate": "train.evaluate",
    "export_run": "train.export",
    "fit_scaling_laws": "scaling.report",
    "load_encoder": "features.encoder",
    "load_head": "probe.heads.saved",
    "load_settings": "config",
    "predict": "probe.predict.run",
    "pretrain": "train.loop",
    "probe_encoder": "probe.run",
    "read_recording": "data.sources.streaming",
}

__all__ = [
    "BuildSettings",
    "PretrainSettings",
    "PretrainedEncoder",
    "ProbeSettings",
    "SavedHead",
    "SelfPABFeatures",
    "build_records",
    "embed",
    "evaluate",
    "export_run",
    "fit_scaling_laws",
    "load_encoder",
    "load_head",
    "load_settings",
    "predict",
    "pretrain",
    "probe_encoder",
    "read_recording",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and JAX with it, only then: the command line starts faster without."""
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
