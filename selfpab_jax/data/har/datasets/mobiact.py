"""MobiAct: daily activities and falls, a smartphone in a trouser pocket."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from selfpab_jax.data.har.base import Orientation, Published, check_orientation, published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Sensor, class_indices
from selfpab_jax.data.har.resync import GAP_LIMIT, believed, common_stretches, left_out, nearest, rate_notes, stream_of
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.tables import numbers, read_table, seconds, to_datetime

ACTIVITIES = (
    ("STD", "standing"),
    ("WAL", "walking"),
    ("JOG", "jogging"),
    ("JUM", "jumping"),
    ("STU", "stairs up"),
    ("STN", "stairs down"),
    ("SCH", "stand to sit"),
    ("SIT", "sitting on chair"),
    ("CHU", "sit to stand"),
    ("CSI", "car step in"),
    ("CSO", "car step out"),
)
FALLS = (
    ("LYI", "lying after a fall"),
    ("FOL", "fall forward"),
    ("FKL", "fall on knees"),
    ("BSC", "fall from chair"),
    ("SDL", "fall sideward"),
)
CARD = DatasetCard(
    name="mobiact",
    version="2.0.0",
    title="MobiAct",
    description=(
        "67 people did 11 activities, five scenarios made of them, and four kinds of falls, with a smartphone in a "
        "trouser pocket (accelerometer, gyroscope and orientation, of which the accelerometer is read). A trial is one "
        "file, 6 s to 5 minutes."
    ),
    citation="""@inproceedings{vavoulas2016mobiact,
  author = {Vavoulas, George and Chatzaki, Charikleia and Malliotakis, Thodoris and Pediaditis, Matthew and
    Tsiknakis, Manolis},
  title = {The {MobiAct} Dataset: Recognition of Activities of Daily Living using Smartphones},
  booktitle = {International Conference on Information and Communication Technologies for Ageing Well and e-Health},
  pages = {143--151},
  year = {2016},
  doi = {10.5220/0005792401430151},
}""",
    license="none stated in its files; handed out by its authors on request",
    homepage="https://bmi.hmu.gr/the-mobifall-and-mobiact-datasets-2/",
    sensors=(
        Sensor(
            "pocket",
            "smartphone in a trouser pocket, put there as each person liked; axes derived for a phone that stands "
            "upright with its screen away from the leg (Android: x to the right of the screen, y up, z out of it), "
            "then corrected by gravity; brought to the thigh's axes",
            ("-y", "-x", "-z"),
        ),
    ),
    default_sensors=("pocket",),
    rate_hz=200.0,
    unit="m/s2",
    classes=ACTIVITIES,
    downloads=(),
    manual=(
        "Ask for MobiAct_Dataset_v2.0 as its homepage says (https://bmi.hmu.gr/the-mobifall-and-mobiact-datasets-2/, "
        "bmi@hmu.gr) and unpack it: Annotated Data/WAL/WAL_1_1_annotated.csv and so on."
    ),
    cut_at_activity=True,
)
COLUMNS = ["timestamp", "acc_x", "acc_y", "acc_z", "label"]
FILE_NAME = re.compile(r"([A-Z]{3})_(\d+)_(\d+)_annotated\.csv")
BYTES_A_ROW = 130


@dataclass(frozen=True)
class MobiAct(Published):
    """`Annotated Data/WAL/WAL_1_1_annotated.csv`: activity, subject, trial; timestamps in ns, a label in each row.

    Folders by subject instead of by activity, as the original wants them, are read as well. Phones sample unevenly;
    each trial is interpolated onto the declared 200 Hz.

    Attributes:
        falls: whether the trials of falls are read; the card then has their classes and the lying after them.
        gap_limit: seconds without a sample that are bridged by a straight line; longer gaps end a recording.
        orientation: "gravity" turns each trial by quarter turns so that its mean lies on x at -1 g, as the original
            does (which does not see to the sign, and magnitudes of spectrograms do not show it); it takes the posture
            out of trials that are one posture. "declared" leaves the phone's axes as declared.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    falls: bool = False
    gap_limit: float = GAP_LIMIT
    orientation: Orientation = "gravity"

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        super().__post_init__()

    @property
    def card(self) -> DatasetCard:
        """With the classes of the trials that are read."""
        card = super().card
        return replace(card, classes=ACTIVITIES + FALLS) if self.falls else card

    def files(self) -> Iterator[SourceFile]:
        """Every trial, by subject and name; no file is opened.

        Raises:
            DataError: not a folder of MobiAct.
        """
        root = published_folder(self.path, "*/*_annotated.csv", "MobiAct")
        named = [(FILE_NAME.fullmatch(path.name), path) for path in root.glob("*/*_annotated.csv")]
        trials = [(int(name[2]), name[1], int(name[3]), path) for name, path in named if name]
        falls = {label for label, _ in FALLS}
        for subject, activity, _, path in sorted(trials):
            if self.falls or activity not in falls:
                name = path.name.removesuffix("_annotated.csv")
                yield SourceFile(str(subject), name, str(path), path.stat().st_size // BYTES_A_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The trial between its longer gaps.

        Raises:
            UnusableError: unreadable, a column missing or of the wrong type, far too few samples a second, or no signal
                that can be believed.
        """
        table = read_table(Path(file.path), COLUMNS)
        if not table.num_rows:
            raise UnusableError("too short: the table has no rows")
        times_N = seconds(table, "timestamp", "ns")
        samples = stream_of(times_N, np.stack([numbers(table, f"acc_{axis}") for axis in "xyz"], axis=1))
        notes = rate_notes(samples, self.card.rate_hz, "the phone")
        backwards = int((np.diff(times_N) < 0).sum())
        if backwards:
            notes += (f"rows sorted by time: {backwards} were earlier than the row before",)
        published_N = np.array(["" if label is None else str(label) for label in table.column("label").to_pylist()])
        indices_N, unknown = class_indices(published_N, self.card.classes)
        times_M, first_M = np.unique(times_N, return_index=True)
        parts = common_stretches([samples], self.card.rate_hz, self.gap_limit)
        gravity_C = self.converted([samples.signal_Nx3.mean(axis=0, keepdims=True)])[0]
        recordings, unbelieved = believed(
            self,
            file,
            parts,
            lambda at_K: indices_N[first_M[nearest(times_M, at_K)]],
            moment=lambda time: to_datetime(time, "ns"),
            gravity_C=gravity_C if self.orientation == "gravity" else None,
        )
        lost = left_out(parts, [(float(times_M[0]), float(times_M[-1]))], self.gap_limit)
        return with_notes(recordings, notes + unknown + lost + unbelieved)
