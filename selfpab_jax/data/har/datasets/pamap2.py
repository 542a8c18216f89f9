"""PAMAP2: eighteen activities; wrist, chest and ankle."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from selfpab_jax.data.har.base import find_published_folder
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.dat_files import DatLayout, read_session
from selfpab_jax.data.har.labels import Classes, class_indices
from selfpab_jax.data.har.resync import ResyncedDataset, nearest
from selfpab_jax.data.sources.base import Recording, SourceFile

PROTOCOL_CLASSES: Classes = (
    (1, "lying"),
    (2, "sitting"),
    (3, "standing"),
    (4, "walking"),
    (5, "running"),
    (6, "cycling"),
    (7, "nordic walking"),
    (12, "ascending stairs"),
    (13, "descending stairs"),
    (16, "vacuum cleaning"),
    (17, "ironing"),
    (24, "rope jumping"),
)
OPTIONAL_CLASSES: Classes = (
    (9, "watching tv"),
    (10, "computer work"),
    (11, "car driving"),
    (18, "folding laundry"),
    (19, "house cleaning"),
    (20, "playing soccer"),
)
CARD = DatasetCard(
    name="pamap2",
    version="1.0.0",
    title="PAMAP2 Physical Activity Monitoring",
    description=(
        "9 subjects followed a protocol of 12 activities, and some of them did further ones, with three wireless "
        "inertial measurement units, of which the +-16 g accelerometers are read. Samples lost in transmission are "
        "missing. Activity 0, transitions between activities, is unlabeled."
    ),
    citation="""@inproceedings{reiss2012introducing,
  author = {Reiss, Attila and Stricker, Didier},
  title = {Introducing a New Benchmarked Dataset for Activity Monitoring},
  booktitle = {16th International Symposium on Wearable Computers (ISWC)},
  pages = {108--109},
  year = {2012},
  doi = {10.1109/ISWC.2012.13},
}""",
    license="CC BY 4.0",
    homepage="https://archive.ics.uci.edu/dataset/231/pamap2+physical+activity+monitoring",
    sensors=(
        Sensor("chest", "chest; axes derived: y up, z toward the body, x right", ("-y", "-x", "-z")),
        Sensor(
            "ankle",
            "ankle of the dominant side; axes derived: x up, z toward the other leg, y forward; converted to the "
            "thigh's axes",
            ("-x", "-z", "-y"),
        ),
        Sensor(
            "hand",
            "wrist of the dominant arm; axes derived: x down along the hanging arm; y and z as published",
            ("+x", "+y", "+z"),
        ),
    ),
    default_sensors=("chest", "ankle"),
    rate_hz=100.0,
    unit="m/s2",
    classes=PROTOCOL_CLASSES,
    downloads=(
        Download(
            "https://archive.ics.uci.edu/static/public/231/pamap2+physical+activity+monitoring.zip",
            None,
            inner="PAMAP2_Dataset.zip",
        ),
    ),
    manual=(
        "Download the zip from https://archive.ics.uci.edu/dataset/231, unpack it and the PAMAP2_Dataset.zip inside: "
        "Protocol/subject101.dat to subject109.dat, Optional/subject101.dat and so on."
    ),
    cut_at_activity=True,
)
LAYOUT = DatLayout(
    title="PAMAP2",
    width=54,
    time=0,
    ticks_per_second=1.0,
    rate_hz=CARD.rate_hz,
    first_columns={"hand": 4, "chest": 21, "ankle": 38},
)
"""The +-16 g accelerometers; those of +-6 g, in the three columns after them, saturate when subjects run."""
ACTIVITY_COLUMN = 1
BYTES_PER_ROW = 420


@dataclass(frozen=True)
class Pamap2(ResyncedDataset):
    """`Protocol/subject101.dat` and so on, `Optional/` in the same way: 54 columns, 100 rows per second.

    Axes: the publishers state none, so they are derived. In the first row of the published files (subject 101) the
    chest reads (0.2, 9.8, -1.7) m/s^2 and the ankle (9.7, -1.7, -0.1): upright, y of the chest and x of the ankle
    point up. The chest slopes backward and the shank forward, so the smaller readings show that z of the chest points
    toward the body and y of the ankle forward. In right-handed frames, x of the chest then points right and z of the
    ankle toward the other leg, as z of the same unit does at the chest. (8 of the 9 subjects are right-handed; on the
    left ankle of subject 108 y and z would be reversed, which magnitude spectrograms do not show.)

    The original uses the ankle alone, drops rows without values or with activity 0 and joins the rest, leaves the
    axes as they are, and does not read the optional sessions. Here time is kept.

    Attributes:
        gap_limit: see `ResyncedDataset`.
        optional: whether to read the optional sessions too; the card then has their classes as well.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    optional: bool = False

    @property
    def card(self) -> DatasetCard:
        """Card with the classes of the sessions that are read."""
        card = super().card
        return replace(card, classes=PROTOCOL_CLASSES + OPTIONAL_CLASSES) if self.optional else card

    def files(self) -> Iterator[SourceFile]:
        """Every session, by subject, those of the protocol first; no file is opened.

        Raises:
            DataError: not a folder of PAMAP2.
        """
        direct = next(Path(self.path).glob("subject*.dat"), None) is not None
        root = Path(self.path) if direct else find_published_folder(self.path, "Protocol/subject*.dat", "PAMAP2")
        paths = list(root.glob("subject*.dat" if direct else "Protocol/subject*.dat"))
        if self.optional:
            paths += root.glob("Optional/subject*.dat")
        for path in sorted(paths, key=lambda path: (path.stem, path.parent.name == "Optional")):
            name = f"{path.stem}-optional" if path.parent.name == "Optional" else path.stem
            yield SourceFile(path.stem, name, str(path), path.stat().st_size // BYTES_PER_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The session between its longer gaps; samples of activity 0 are kept, unlabeled.

        Raises:
            UnusableError: not such a file, times out of order or of another rate, a sensor without values, or no
                plausible signal.
        """
        names = [sensor.name for sensor in self.selected_sensors]
        session = read_session(Path(file.path), LAYOUT, ACTIVITY_COLUMN, names, self.gap_limit)
        indices_N, notes = class_indices(session.labels_N, self.card.classes, unlabeled=(0,))
        return self.resynced_recordings(
            file,
            session.streams,
            lambda at_M: indices_N[nearest(session.times_N, at_M)],
            recorded=session.span,
            notes=notes,
        )
