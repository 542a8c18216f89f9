"""PAMAP2: eighteen activities, inertial sensors on hand, chest and ankle."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from selfpab_jax.data.har.base import Published, published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor, class_indices
from selfpab_jax.data.har.dat_files import Layout, read_session
from selfpab_jax.data.har.resync import GAP_LIMIT, believed, common_stretches, left_out, nearest
from selfpab_jax.data.sources.base import Recording, SourceFile

PROTOCOL_CLASSES = (
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
OPTIONAL_CLASSES = (
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
        "9 people followed a protocol of 12 activities, and some of them did further ones, with three wireless "
        "inertial units (of which the accelerometers of +-16 g are read). Samples lost on the radio are missing. "
        "Activity 0, transients between activities, has no class."
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
        Sensor("chest", "chest; axes derived: y up, z towards the body, x right", ("-y", "-x", "-z")),
        Sensor(
            "ankle",
            "dominant side's ankle; axes derived: x up, z towards the other leg, y forward; brought to the "
            "thigh's axes",
            ("-x", "-z", "-y"),
        ),
        Sensor(
            "hand",
            "wrist of the dominant arm; axes derived: x along the hanging arm, downwards; y and z are left as they are",
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
        "Download the zip from https://archive.ics.uci.edu/dataset/231, unpack it and PAMAP2_Dataset.zip within it: "
        "Protocol/subject101.dat to subject109.dat, Optional/subject101.dat and so on."
    ),
    cut_at_activity=True,
)
LAYOUT = Layout(
    what="a file of PAMAP2",
    width=54,
    time=0,
    ticks=1.0,
    rate_hz=CARD.rate_hz,
    first_columns={"hand": 4, "chest": 21, "ankle": 38},
)
"""Of each sensor the acceleration at +-16 g; the three columns after it, at +-6 g, saturate when people run."""
ACTIVITY = 1
BYTES_A_ROW = 420


@dataclass(frozen=True)
class Pamap2(Published):
    """`Protocol/subject101.dat` and so on, `Optional/` likewise: 54 columns a line, 100 lines a second.

    Axes: the publishers state none, so they are derived. In the first row of the published files (subject 101) the
    chest reads (0.2, 9.8, -1.7) m/s^2 and the ankle (9.7, -1.7, -0.1): upright, y of the chest and x of the ankle
    point up. A chest slopes backwards and a shank forwards, so that the smaller readings say that z of the chest
    points towards the body and y of the ankle forward; right-handed frames leave x of the chest to the right and z of
    the ankle towards the other leg, as the same unit's z does at the chest. (8 of the 9 people are right-handed; on
    the left ankle of subject 108 y and z would be the other way round, which magnitudes of spectrograms do not show.)

    The original uses the ankle alone, drops the rows without values or with activity 0 and joins the rest, leaves the
    axes as they are, and has no optional sessions. Here time is kept: gaps up to `gap_limit` are bridged by straight
    lines, longer ones end a recording.

    Attributes:
        optional: whether the optional sessions are read too; the card then has their classes as well.
        gap_limit: seconds.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    optional: bool = False
    gap_limit: float = GAP_LIMIT

    @property
    def card(self) -> DatasetCard:
        """With the classes of the sessions that are read."""
        card = super().card
        return replace(card, classes=PROTOCOL_CLASSES + OPTIONAL_CLASSES) if self.optional else card

    def files(self) -> Iterator[SourceFile]:
        """Every session, by subject, the protocol's first; no file is opened.

        Raises:
            DataError: not a folder of PAMAP2.
        """
        direct = next(Path(self.path).glob("subject*.dat"), None) is not None
        root = Path(self.path) if direct else published_folder(self.path, "Protocol/subject*.dat", "PAMAP2")
        paths = list(root.glob("subject*.dat" if direct else "Protocol/subject*.dat"))
        if self.optional:
            paths += root.glob("Optional/subject*.dat")
        for path in sorted(paths, key=lambda path: (path.stem, path.parent.name == "Optional")):
            name = f"{path.stem}-optional" if path.parent.name == "Optional" else path.stem
            yield SourceFile(path.stem, name, str(path), path.stat().st_size // BYTES_A_ROW)

    def read(self, file: SourceFile) -> list[Recording]:
        """The session between its longer gaps; samples of activity 0 are there, without a label.

        Raises:
            UnusableError: not such a file, times out of order or of another rate, a sensor without values, or no signal
                that can be believed.
        """
        names = [sensor.name for sensor in self.chosen]
        session = read_session(Path(file.path), LAYOUT, ACTIVITY, names, self.gap_limit)
        parts = common_stretches(session.streams, self.card.rate_hz, self.gap_limit)
        indices_N, notes = class_indices(session.labels_N, self.card.classes, none=(0,))
        recordings, unbelieved = believed(self, file, parts, lambda at_M: indices_N[nearest(session.times_N, at_M)])
        lost = left_out(parts, [session.span], self.gap_limit)
        return with_notes(recordings, notes + lost + unbelieved)
