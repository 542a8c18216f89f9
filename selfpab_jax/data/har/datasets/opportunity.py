"""Opportunity: locomotion, or gestures of both arms, in a kitchen; back, right knee and hip."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from selfpab_jax.data.har.base import find_published_folder
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.dat_files import DatLayout, read_session
from selfpab_jax.data.har.labels import Classes, class_indices
from selfpab_jax.data.har.resync import OrientedDataset, nearest
from selfpab_jax.data.sources.base import Recording, SourceFile
from selfpab_jax.errors import ConfigError

LabelTrack = Literal["locomotion", "gestures"]
LOCOMOTION: Classes = ((1, "stand"), (2, "walk"), (4, "sit"), (5, "lie"))
GESTURES: Classes = (
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
X_UP = ("-x", "+y", "-z")
ASSUMED_AXES = "axes are not published: x is assumed to point up, then corrected by gravity"
CARD = DatasetCard(
    name="opportunity",
    version="1.0.0",
    title="OPPORTUNITY Activity Recognition",
    description=(
        "4 subjects, each with five runs of morning activities (ADL) and one of scripted repetitions (Drill), with "
        "many sensors on the body, on objects and in the room. Only the wireless accelerometers on back, hip and right "
        "upper knee are read; samples lost in transmission are missing."
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
        Sensor("back", f"back (BACK); {ASSUMED_AXES}", X_UP),
        Sensor("knee", f"right leg above the knee (RKN^); {ASSUMED_AXES}", X_UP),
        Sensor("hip", f"hip (HIP); {ASSUMED_AXES}", X_UP),
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
LAYOUT = DatLayout(
    title="Opportunity",
    width=250,
    time=0,
    ticks_per_second=1000.0,
    rate_hz=CARD.rate_hz,
    first_columns={"knee": 1, "hip": 4, "back": 16},
)
LABEL_TRACKS: dict[str, tuple[int, Classes]] = {
    "locomotion": (243, LOCOMOTION),
    "gestures": (249, GESTURES),
}
"""Column, counted from 0, and classes of each track."""
FILE_NAME = re.compile(r"(S\d+)-(ADL\d+|Drill)\.dat")
BYTES_PER_ROW = 1000


@dataclass(frozen=True)
class Opportunity(OrientedDataset):
    """`S1-ADL1.dat` to `S4-Drill.dat`: 250 columns, 30 rows per second.

    Axes: the publishers state none. The declared ones are an assumption (x up along the body). With `orientation`
    "gravity" each sensor of a file is rotated so that its median over the file, most of which subjects spend on their
    feet, is on x at about -1 g. Labels play no part in it.

    Attributes:
        labels: "locomotion", or "gestures": the 17 mid-level ones of both arms.
        gap_limit: see `ResyncedDataset`.
        orientation: see `OrientedDataset`.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    labels: LabelTrack = "locomotion"

    def __post_init__(self) -> None:
        if self.labels not in LABEL_TRACKS:
            raise ConfigError(f"labels is {self.labels!r}: give {' or '.join(LABEL_TRACKS)}")
        super().__post_init__()

    @property
    def card(self) -> DatasetCard:
        """Card with the classes of the selected label track."""
        return replace(super().card, classes=LABEL_TRACKS[self.labels][1])

    def files(self) -> Iterator[SourceFile]:
        """Every run, by subject and name; no file is opened.

        Raises:
            DataError: not a folder of Opportunity.
        """
        inner = Path(self.path) / "OpportunityUCIDataset"
        root = find_published_folder(str(inner if inner.is_dir() else self.path), "S?-*.dat", "Opportunity")
        for path in sorted(root.glob("S?-*.dat")):
            if match := FILE_NAME.fullmatch(path.name):
                yield SourceFile(match[1], path.stem, str(path), path.stat().st_size // BYTES_PER_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The run between its longer gaps; the null class is unlabeled.

        Raises:
            UnusableError: not such a file, times out of order or of another rate, a sensor without values, or no
                plausible signal.
        """
        column, classes = LABEL_TRACKS[self.labels]
        names = [sensor.name for sensor in self.selected_sensors]
        session = read_session(Path(file.path), LAYOUT, column, names, self.gap_limit)
        indices_N, notes = class_indices(session.labels_N, classes, unlabeled=(0,))
        medians = [np.median(stream.signal_Nx3, axis=0, keepdims=True) for stream in session.streams]
        return self.resynced_recordings(
            file,
            session.streams,
            lambda at_M: indices_N[nearest(session.times_N, at_M)],
            recorded=session.span,
            notes=notes,
            gravity_C=self.convert(medians)[0] if self.orientation == "gravity" else None,
        )
