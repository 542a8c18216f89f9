"""Errors that a person can mend: the command line prints them in a line or two, without a traceback."""


class SelfPABError(Exception):
    """What is wrong, in which file or field, and what to do."""


class ConfigError(SelfPABError):
    """A field of the configuration or an argument is wrong."""


class DataError(SelfPABError):
    """Recordings or records are missing, damaged or do not fit."""


class ModelError(SelfPABError):
    """A model directory or checkpoint is missing, damaged or does not fit."""


class RunError(SelfPABError):
    """A training run cannot start or go on."""
