"""Space-separated tables of numbers without a header, as PAMAP2 and Opportunity are published."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64

from selfpab_jax.data.source import Rejected


def read_spaced(path: Path, columns: list[int], width: int, what: str) -> Float64[np.ndarray, "N columns"]:
    """Some columns of the table, missing values as NaN.

    Args:
        path: of the file.
        columns: wanted, counted from 0.
        width: number of columns that the file must have.
        what: the file is, for the message.

    Raises:
        Rejected: unreadable, of another number of columns, or something other than numbers in a wanted column.
    """
    try:
        with open(path, encoding="ascii") as lines:
            present = len(lines.readline().split())
        if present != width:
            raise Rejected(f"{present} columns; {what} has {width}, separated by spaces")
        table = pd.read_csv(path, sep=r"\s+", header=None, usecols=sorted(columns))
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise Rejected(f"not {what}: {str(error).splitlines()[0]}") from None
    wrong = [column for column in columns if table[column].dtype.kind not in "fiu"]
    if wrong:
        raise Rejected(f"wrong type: column {wrong[0] + 1} holds something other than numbers")
    return table[columns].to_numpy(np.float64)
