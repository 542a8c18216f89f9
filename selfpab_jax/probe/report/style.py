"""The common style of the figures: colors that remain distinct for color-blind readers, and text without math mode."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

# The palette of Okabe and Ito without its yellow, which is too pale on white; then darker and lighter variants.
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444",
    "#882255", "#999933", "#332288", "#AA9A80", "#117733",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
TRUTH, RIGHT, WRONG, UNKNOWN = "#222222", "#56B4E9", "#D55E00", "#BBBBBB"


@contextmanager
def new_figure(path: Path, width: int | float, height: int | float, *, dpi: int = 110) -> Iterator[Figure]:
    """A figure to draw on, which is written to a PNG file when the block ends.

    Args:
        path: of the file.
        width: in inches; the file is larger if text needs more space.
        height: in inches.
        dpi: pixels per inch.
    """
    with (
        matplotlib.rc_context(
            {"text.parse_math": False, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in scripts that the font lacks
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        # "tight": constrained layout does not make space for a title that is wider than its axes.
        figure.savefig(path, dpi=dpi, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})


def brief(name: str, letters: int = 28) -> str:
    """A name in one line that fits into a figure; the middle of a long name is left out."""
    name = " ".join(name.split())
    if len(name) > letters:
        head = (letters - 1) * 2 // 3
        name = f"{name[:head].rstrip()}…{name[len(name) - (letters - 1 - head) :].lstrip()}"
    return f" {name}" if name.startswith("_") else name  # matplotlib hides names with a leading underscore


def color(index: int) -> str:
    """Color of the class, method or subject with this index."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Marker of the class or subject with this index; pairs of color and marker repeat only after many indices."""
    return MARKERS[index % len(MARKERS)]
