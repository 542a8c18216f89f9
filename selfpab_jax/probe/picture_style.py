"""What the probe's pictures share: colours that colour-blind people tell apart, and text taken as it is."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is too pale on white; then darker and lighter relatives.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444",
    "#882255", "#999933", "#332288", "#AA9A80", "#117733",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TRUTH, RIGHT, WRONG, UNKNOWN = "#222222", "#56B4E9", "#D55E00", "#BBBBBB"


@contextmanager
def picture(path: Path, width: float, height: float, *, dpi: int = 110) -> Iterator[Figure]:
    """A figure of so many inches to draw on; it is written to `path` on leaving."""
    with (
        matplotlib.rc_context(
            {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in a script without glyphs: boxes
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=dpi, metadata={"Software": None})


def brief(name: str, letters: int = 28) -> str:
    """A name in one line that fits beside a picture; long ones lose their middle, which tells least."""
    name = " ".join(name.split())
    if len(name) > letters:
        head = (letters - 1) * 2 // 3
        name = f"{name[:head].rstrip()}…{name[len(name) - (letters - 1 - head) :].lstrip()}"
    return f" {name}" if name.startswith("_") else name  # matplotlib hides names with a leading underscore


def colour(index: int) -> str:
    """Of the class, arm or subject with this index."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Changes with every index and out of step with the colours, so that pairs repeat late."""
    return MARKERS[index % len(MARKERS)]
