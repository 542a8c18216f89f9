"""SelfPAB in JAX: masked-reconstruction pre-training on body-worn accelerometers."""

__version__ = "0.1.0"
