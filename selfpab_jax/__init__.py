"""SelfPAB in JAX: masked-reconstruction pre-training on body-worn accelerometers."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"
__all__ = ["PretrainedEncoder", "SelfPABFeatures", "load_encoder"]

if TYPE_CHECKING:
    from selfpab_jax.features.encoder import PretrainedEncoder, load_encoder
    from selfpab_jax.features.sklearn import SelfPABFeatures


def __getattr__(name: str) -> Any:
    """Import JAX only for those who ask for the encoder: the command line answers faster without."""
    if name == "SelfPABFeatures":
        from selfpab_jax.features import sklearn as transformer

        return transformer.SelfPABFeatures
    if name in __all__:
        from selfpab_jax.features import encoder as pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
