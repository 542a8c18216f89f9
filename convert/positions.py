"""The original's fixed positional tables: checked in a file, and built for one with PyTorch's own operations.

A model directory does not store them: the encoder computes its positions.
"""

import math
import re
from typing import Any

import numpy as np
from jaxtyping import Float

from selfpab_jax.model.encoder import CALENDAR

FRAME_ENCODING = "AbsolutePositionalEncoding"
TABLE_ROWS = 10_000
"""Rows of the original's table of frame positions, whatever the length of its windows."""
FRAME_TABLE, NUMBERED_FRAME_TABLE = "emb.pos_encoder.pe", "emb.pos_encoder.pos_encoders.{n}.pe"
CALENDAR_TABLES = {
    f"emb.pos_encoder.pos_encoders.{{n}}.{name}_embed.emb.weight": rows for name, rows in reversed(CALENDAR.items())
}
"""LTA2V's tables and their rows."""
TABLE_NAME = re.compile(
    rf"emb\.pos_encoder\.(pe|pos_encoders\.\d{{1,4}}\.(pe|({'|'.join(CALENDAR)})_embed\.emb\.weight))"
)
ROWS_AT_A_TIME = 256


def is_position(name: str) -> bool:
    """Whether a tensor is one of the fixed tables."""
    return TABLE_NAME.fullmatch(name) is not None


def table_shapes(encodings: str | list[str], width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tables, in the order in which the original's modules register them.

    Args:
        encodings: as `hyper_parameters.encodings_of`; those of a list are numbered.
        width: D.
    """
    if isinstance(encodings, str):
        return {FRAME_TABLE: (1, TABLE_ROWS, width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, encoding in enumerate(encodings):
        if encoding == FRAME_ENCODING:
            shapes[NUMBERED_FRAME_TABLE.format(n=number)] = (1, TABLE_ROWS, width)
        else:
            shapes |= {name.format(n=number): (rows, width) for name, rows in CALENDAR_TABLES.items()}
    return shapes


def is_sinusoid(table_RxD: Float[np.ndarray, "R D"], rounding: float = 0.0) -> bool:
    """Whether a table holds the sinusoids (base 10,000), up to float32 rounding.

    The original computes rate and angle in float32, so the tolerance grows with the angle: 1e-6 at row 0, and 1e-4
    at frame 599 of the fastest feature.

    Args:
        table_RxD: R rows of D features.
        rounding: of values near 1 in the dtype that the table was stored in, where it is less precise than float32.
    """
    rows, width = table_RxD.shape
    exponent = np.arange(0, width, 2) * (math.log(10_000.0) / width)
    rate = np.exp(-exponent)
    for start in range(0, rows, ROWS_AT_A_TIME):
        chunk = table_RxD[start : start + ROWS_AT_A_TIME]
        angle = np.arange(start, start + len(chunk))[:, None] * rate
        tolerance = 1e-6 + rounding + angle * 1.3e-7 * (1 + exponent)
        for features, wave in ((chunk[:, 0::2], np.sin), (chunk[:, 1::2], np.cos)):
            if not (np.abs(features - wave(angle)) <= tolerance).all():
                return False
    return True


def build_tables(torch: Any, encodings: str | list[str], width: int) -> dict[str, Any]:
    """The tables as tensors under their names.

    Args:
        torch: the module; its exponential, sine and cosine decide the last bits.
        encodings: as `hyper_parameters.encodings_of`.
        width: D.
    """
    rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10_000.0) / width))

    def table(rows: int) -> Any:
        angle = torch.arange(rows).float()[:, None] * rate
        built = torch.empty(rows, width)
        torch.sin(angle, out=built[:, 0::2])
        torch.cos(angle, out=built[:, 1::2])
        return built

    return {name: table(shape[-2]).reshape(shape) for name, shape in table_shapes(encodings, width).items()}
