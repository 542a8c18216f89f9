"""MobiAct: eleven daily activities and four kinds of falls; a smartphone in a trouser pocket."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from selfpab_jax.data.har.axes import AXES
from selfpab_jax.data.har.base import find_published_folder
from selfpab_jax.data.har.card import DatasetCard, Sensor
from selfpab_jax.data.har.labels import Classes, class_indices
from selfpab_jax.data.har.resync import OrientedDataset, nearest, rate_notes, sample_stream
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.tables.columns import numbers, read_table, seconds
from selfpab_jax.data.tables.timestamps import to_datetime

ACTIVITIES: Classes = (
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
FALLS: Classes = (
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
        "67 subjects did 11 activities, five scenarios composed of them, and four kinds of falls, with a smartphone in "
        "a trouser pocket (accelerometer, gyroscope and orientation, of which the accelerometer is read). One file per "
        "trial of 6 s to 5 minutes."
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
    license="none stated in the files; available from the authors on request",
    homepage="https://bmi.hmu.gr/the-mobifall-and-mobiact-datasets-2/",
    sensors=(
        Sensor(
            "pocket",
            "smartphone in a trouser pocket, in any orientation; axes derived for a phone that stands upright with its "
            "screen away from the leg (Android: x to the right of the screen, y up, z out of it), then corrected by "
            "gravity; converted to the thigh's axes",
            ("-y", "-x", "-z"),
        ),
    ),
    default_sensors=("pocket",),
    rate_hz=200.0,
    unit="m/s2",
    classes=ACTIVITIES,
    downloads=(),
    manual=(
        "Request MobiAct_Dataset_v2.0 from its authors (https://bmi.hmu.gr/the-mobifall-and-mobiact-datasets-2/, "
        "bmi@hmu.gr) and unpack it: Annotated Data/WAL/WAL_1_1_annotated.csv and so on."
    ),
    cut_at_activity=True,
)
COLUMNS = ["timestamp", *(f"acc_{axis}" for axis in AXES), "label"]
FILE_NAME = re.compile(r"([A-Z]{3})_(\d+)_(\d+)_annotated\.csv")
BYTES_PER_ROW = 130


@dataclass(frozen=True)
class MobiAct(OrientedDataset):
    """`Annotated Data/WAL/WAL_1_1_annotated.csv`: activity, subject, trial; timestamps in ns, one label per row.

    Folders by subject instead of by activity, which the original expects, are read as well. Phones sample unevenly;
    each trial is interpolated onto the declared 200 Hz.

    With `orientation` "gravity" each trial is rotated so that its mean is on x at about -1 g, as in the original
    (which ignores the sign, as do magnitude spectrograms). This removes the posture from trials of a single posture.

    Attributes:
        gap_limit: see `ResyncedDataset`.
        orientation: see `OrientedDataset`.
        falls: whether to read the trials of falls; the card then has their classes and the lying after them.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    falls: bool = False

    @property
    def card(self) -> DatasetCard:
        """Card with the classes of the trials that are read."""
        card = super().card
        return replace(card, classes=ACTIVITIES + FALLS) if self.falls else card

    def files(self) -> Iterator[SourceFile]:
        """Every trial, by subject and name; no file is opened.

        Raises:
            DataError: not a folder of MobiAct.
        """
        root = find_published_folder(self.path, "*/*_annotated.csv", "MobiAct")
        matches = [(FILE_NAME.fullmatch(path.name), path) for path in root.glob("*/*_annotated.csv")]
        trials = [(int(match[2]), match[1], int(match[3]), path) for match, path in matches if match]
        falls = {label for label, _ in FALLS}
        for subject, activity, _, path in sorted(trials):
            if self.falls or activity not in falls:
                name = path.name.removesuffix("_annotated.csv")
                yield SourceFile(str(subject), name, str(path), path.stat().st_size // BYTES_PER_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The trial between its longer gaps.

        Raises:
            UnusableError: unreadable, a column missing or of the wrong type, a far too low sampling rate, or no
                plausible signal.
        """
        table = read_table(Path(file.path), COLUMNS)
        if not table.num_rows:
            raise UnusableError("too short: the table has no rows")
        times_N = seconds(table, "timestamp", "ns")
        stream = sample_stream(times_N, np.stack([numbers(table, f"acc_{axis}") for axis in AXES], axis=1))
        notes = rate_notes(stream, self.card.rate_hz, "the phone")
        backward = int((np.diff(times_N) < 0).sum())
        if backward:
            notes += (f"rows sorted by time: {backward} were earlier than the row before",)
        published_N = np.array(["" if label is None else str(label) for label in table.column("label").to_pylist()])
        indices_N, unknown = class_indices(published_N, self.card.classes)
        times_M, first_M = np.unique(times_N, return_index=True)
        mean = stream.signal_Nx3.mean(axis=0, keepdims=True)
        return self.resynced_recordings(
            file,
            [stream],
            lambda at_K: indices_N[first_M[nearest(times_M, at_K)]],
            recorded=(float(times_M[0]), float(times_M[-1])),
            notes=notes + unknown,
            start_at=lambda time: to_datetime(time, "ns"),
            gravity_C=self.convert([mean])[0] if self.orientation == "gravity" else None,
        )
