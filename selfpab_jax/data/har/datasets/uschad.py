"""USC-HAD: twelve activities, one accelerometer on the front right hip."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.io

from selfpab_jax.data.har.base import PublishedDataset, find_published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.labels import class_indices
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError

CARD = DatasetCard(
    name="uschad",
    version="1.0.0",
    title="USC Human Activity Dataset",
    description=(
        "14 subjects did 12 activities, five trials each, with a MotionNode on the front right hip (accelerometer and "
        "gyroscope, of which the accelerometer is read). A trial is one recording of one activity, 6 s to 2 minutes."
    ),
    citation="""@inproceedings{zhang2012uschad,
  author = {Zhang, Mi and Sawchuk, Alexander A.},
  title = {{USC-HAD}: A Daily Activity Dataset for Ubiquitous Activity Recognition Using Wearable Sensors},
  booktitle = {ACM International Conference on Ubiquitous Computing (UbiComp) Workshop on Situation, Activity and
    Goal Awareness (SAGAware)},
  year = {2012},
}""",
    license="none stated; offered by the authors for research",
    homepage="https://sipi.usc.edu/had/",
    sensors=(
        Sensor(
            "hip",
            "front right hip, in a phone pouch; published axes x up, y forward, z left; converted to the thigh's axes "
            "(x down, y right, z backward), as in the original",
            ("-x", "-z", "-y"),
        ),
    ),
    default_sensors=("hip",),
    rate_hz=100.0,
    unit="g",
    classes=(
        (1, "walking forward"),
        (2, "walking left"),
        (3, "walking right"),
        (4, "walking upstairs"),
        (5, "walking downstairs"),
        (6, "running forward"),
        (7, "jumping up"),
        (8, "sitting"),
        (9, "standing"),
        (10, "sleeping"),
        (11, "elevator up"),
        (12, "elevator down"),
    ),
    downloads=(Download("https://sipi.usc.edu/had/USC-HAD.zip", None),),
    manual="Download USC-HAD.zip from https://sipi.usc.edu/had/ and unpack it: Subject1/a1t1.mat and so on.",
    subjects=14,
    cut_at_activity=True,
)
NUMBER_FIELDS = ("activity_number", "activity_numbr")
"""Field of the activity, which is misspelled in some files."""
FILE_NAME = re.compile(r"a(\d+)t(\d+)\.mat", re.IGNORECASE)
BYTES_PER_SAMPLE = 48


@dataclass(frozen=True)
class UscHad(PublishedDataset):
    """`SubjectS/aMtN.mat`: activity M, trial N, each one continuous recording.

    The axes are derived from the published files: upright at rest x is +1 g, so it points up; leaning back in a chair
    raises y, so it points forward; walking counterclockwise rotates about +x at 25 degrees per second, and z completes
    the right-handed frame: left. (The original assumes that x points down and z right, and leaves the sign of x;
    magnitude spectrograms are the same.)
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)

    def files(self) -> Iterator[SourceFile]:
        """Every trial, by subject and name; no file is opened.

        Raises:
            DataError: not a folder of USC-HAD.
        """
        root = find_published_folder(self.path, "Subject*/a*t*.mat", "USC-HAD")
        for folder in sorted(root.glob("Subject*")):
            for path in sorted(folder.glob("a*t*.mat")):
                yield SourceFile(folder.name, path.stem, str(path), path.stat().st_size // BYTES_PER_SAMPLE)

    def read(self, file: SourceFile) -> list[Recording]:
        """The trial as one recording; it is unlabeled if its activity number is none of the twelve.

        Raises:
            UnusableError: not a MATLAB file, a field missing, no activity number, or an implausible signal.
        """
        content = _load(Path(file.path))
        readings = content.get("sensor_readings")
        if readings is None:
            raise UnusableError(f"no field sensor_readings; the file has {_fields(content)}")
        if readings.ndim != 2 or readings.shape[1] < 3 or readings.dtype.kind not in "fiu":
            raise UnusableError(
                f"wrong type: sensor_readings is {readings.dtype} {readings.shape}, not a table of 6 columns of numbers"
            )
        signal_NxC = self.convert([readings[:, :3]])
        notes = self.quality_notes(signal_NxC)
        labels_N, unknown = class_indices(np.full(len(signal_NxC), _activity(content)), self.card.classes)
        match = FILE_NAME.fullmatch(Path(file.path).name)
        if match and int(match[1]) != _activity(content):
            notes += (f"activity {match[1]} in the file's name, {_activity(content)} in the file: the latter is used",)
        recording = Recording(file.subject, file.name, None, self.card.rate_hz, signal_NxC, labels_N)
        return with_notes([recording], notes + unknown)


def _load(path: Path) -> dict[str, Any]:
    try:
        return scipy.io.loadmat(path)
    except Exception as error:  # a damaged file can make scipy raise anything
        raise UnusableError(f"not a readable MATLAB file: {error}") from None


def _fields(content: dict[str, Any]) -> str:
    return ", ".join(sorted(name for name in content if not name.startswith("__"))) or "nothing"


def _activity(content: dict[str, Any]) -> int:
    for field in NUMBER_FIELDS:
        if field in content:
            try:
                return int(str(np.ravel(content[field])[0]))
            except (ValueError, IndexError):
                raise UnusableError(f"labels: {field} holds {content[field]!r}, not an activity number") from None
    raise UnusableError(f"labels missing: no field activity_number; the file has {_fields(content)}")
