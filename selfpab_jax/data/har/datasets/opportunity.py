"""Opportunity: locomotion, or gestures of both arms, in a kitchen full of sensors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from selfpab_jax.data.har.base import Orientation, Published, check_orientation, published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor, class_indices
from selfpab_jax.data.har.dat_files import Layout, read_session
from selfpab_jax.data.har.resync import GAP_LIMIT, believed, common_stretches, left_out, nearest
from selfpab_jax.data.sources.base import Recording, SourceFile
from selfpab_jax.errors import ConfigError

Labels = Literal["locomotion", "gestures"]
LOCOMOTION = ((1, "stand"), (2, "walk"), (4, "sit"), (5, "lie"))
GESTURES = (
    (406516, "open door 1"),
    (406517, "open door 2"),
    (404516, "close door 1"),
    (404517, "close door 2"),
    (406520, "open fridge"),
    (404520, "close fridge"),
    (406505, "open dishwasher"),
    (404505, "close dishwasher"),
    (406519, "open drawer 1"),
    (404519, "close drawer 1"),
    (406511, "open drawer 2"),
    (404511, "close drawer 2"),
    (406508, "open drawer 3"),
    (404508, "close drawer 3"),
    (408512, "clean table"),
    (407521, "drink from cup"),
    (405506, "toggle switch"),
)
UPWARD_X = ("-x", "+y", "-z")
CARD = DatasetCard(
    name="opportunity",
    version="1.0.0",
    title="OPPORTUNITY Activity Recognition",
    description=(
        "4 people, each with five runs of a morning's activities (ADL) and one of scripted repetitions (Drill), with "
        "many sensors on the body, on objects and in the room; of these the wireless accelerometers on back, hip and "
        "right upper knee are read. Samples lost on the radio are missing."
    ),
    citation="""@article{chavarriaga2013opportunity,
  author = {Chavarriaga, Ricardo and Sagha, Hesam and Calatroni, Alberto and Digumarti, Sundara Tejaswi and
    Tr{\\"o}ster, Gerhard and Mill{\\'a}n, Jos{\\'e} del R. and Roggen, Daniel},
  title = {The Opportunity challenge: A benchmark database for on-body sensor-based activity recognition},
  journal = {Pattern Recognition Letters},
  volume = {34},
  number = {15},
  pages = {2033--2042},
  year = {2013},
  doi = {10.1016/j.patrec.2012.12.014},
}""",
    license="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/226/opportunity+activity+recognition",
    sensors=(
        Sensor("back", "back (BACK); no axes published, x taken as up, then corrected by gravity", UPWARD_X),
        Sensor(
            "knee",
            "right leg above the knee (RKN^); no axes published, x taken as up, then corrected by gravity",
            UPWARD_X,
        ),
        Sensor("hip", "hip (HIP); no axes published, x taken as up, then corrected by gravity", UPWARD_X),
    ),
    default_sensors=("back", "knee"),
    rate_hz=30.0,
    unit="mg",
    classes=LOCOMOTION,
    downloads=(Download("https://archive.ics.uci.edu/static/public/226/opportunity+activity+recognition.zip", None),),
    manual=(
        "Download the zip from https://archive.ics.uci.edu/dataset/226 and unpack it: "
        "OpportunityUCIDataset/dataset/S1-ADL1.dat to S4-Drill.dat."
    ),
)
LAYOUT = Layout(
    what="a file of Opportunity",
    width=250,
    time=0,
    ticks=1000.0,
    rate_hz=CARD.rate_hz,
    first_columns={"knee": 1, "hip": 4, "back": 16},
)
LABELS: dict[str, tuple[int, tuple[tuple[int, str], ...]]] = {
    "locomotion": (243, LOCOMOTION),
    "gestures": (249, GESTURES),
}
"""Column, counted from 0, and classes."""
FILE_NAME = re.compile(r"(S\d+)-(ADL\d+|Drill)\.dat")
BYTES_A_ROW = 1000


@dataclass(frozen=True)
class Opportunity(Published):
    """`S1-ADL1.dat` to `S4-Drill.dat`: 250 columns a line, 30 lines a second.

    Axes: the publishers state none. The declared ones are an assumption (x up along the body); with `orientation`
    "gravity" each sensor of a file is turned by quarter turns so that the median over the file, most of which people
    spend on their feet, lies on x at about -1 g. Labels play no part in it. y and z are right up to a turn about the
    vertical.

    Attributes:
        labels: "locomotion", or "gestures": the 17 mid-level ones of both arms.
        gap_limit: seconds without a sample that are bridged by a straight line; longer gaps end a recording.
        orientation: "gravity", or "declared" for the declared axes as they are.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    labels: Labels = "locomotion"
    gap_limit: float = GAP_LIMIT
    orientation: Orientation = "gravity"

    def __post_init__(self) -> None:
        if self.labels not in LABELS:
            raise ConfigError(f"labels is {self.labels!r}: give {' or '.join(LABELS)}")
        check_orientation(self.orientation)
        super().__post_init__()

    @property
    def card(self) -> DatasetCard:
        """With the classes of the labels asked for."""
        return replace(super().card, classes=LABELS[self.labels][1])

    def files(self) -> Iterator[SourceFile]:
        """Every run, by subject and name; no file is opened.

        Raises:
            DataError: not a folder of Opportunity.
        """
        inner = Path(self.path) / "OpportunityUCIDataset"
        root = published_folder(str(inner if inner.is_dir() else self.path), "S?-*.dat", "Opportunity")
        for path in sorted(root.glob("S?-*.dat")):
            if named := FILE_NAME.fullmatch(path.name):
                yield SourceFile(named[1], path.stem, str(path), path.stat().st_size // BYTES_A_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The run between its longer gaps; the null class has no label.

        Raises:
            UnusableError: not such a file, times out of order or of another rate, a sensor without values, or no signal
                that can be believed.
        """
        column, classes = LABELS[self.labels]
        names = [sensor.name for sensor in self.chosen]
        session = read_session(Path(file.path), LAYOUT, column, names, self.gap_limit)
        parts = common_stretches(session.streams, self.card.rate_hz, self.gap_limit)
        indices_N, notes = class_indices(session.labels_N, classes, none=(0,))
        medians = [np.median(stream.signal_Nx3, axis=0, keepdims=True) for stream in session.streams]
        gravity_C = self.converted(medians)[0] if self.orientation == "gravity" else None
        recordings, unbelieved = believed(
            self, file, parts, lambda at_M: indices_N[nearest(session.times_N, at_M)], gravity_C=gravity_C
        )
        lost = left_out(parts, [session.span], self.gap_limit)
        return with_notes(recordings, notes + lost + unbelieved)
