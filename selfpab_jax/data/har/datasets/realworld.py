"""RealWorld's archives: a sensor's samples out of zips, and zips within zips."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv

from selfpab_jax.data.har.base import (
    Orientation,
    Published,
    check_orientation,
    published_folder,
    to_hunt4_axes,
    with_notes,
)
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor, class_indices
from selfpab_jax.data.har.resync import (
    GAP_LIMIT,
    Stream,
    believed,
    common_stretches,
    left_out,
    overlaps,
    rate_notes,
    stream_of,
)
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.sources.tables import numbers, seconds, to_datetime

# RealWorld's archives: a sensor's samples out of zips, and zips within zips.

ZIP_NAME = re.compile(r"acc_([a-z]+)_csv\.zip")
MEMBER_NAME = re.compile(r"acc_[a-z]+(?:_\d+)?_([a-z]+)\.csv", re.IGNORECASE)
COLUMNS = ["attr_time", "attr_x", "attr_y", "attr_z"]
DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for a damaged or encrypted archive or member."""


@dataclass(frozen=True)
class Part:
    """One file of a sensor: its name, with the inner zip's before it, and its samples."""

    name: str
    stream: Stream


def read_parts(path: Path, sensors: tuple[str, ...]) -> tuple[dict[str, list[Part]], tuple[str, ...]]:
    """Every readable file of each wanted sensor in a zip, in order of time, and a line on each unreadable one.

    A file that overlaps an earlier one of its sensor in time is left out with a line.

    Raises:
        UnusableError: not a zip.
    """
    found: dict[str, list[Part]] = {sensor: [] for sensor in sensors}
    notes = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name, content in _members(archive, sensors, notes):
                try:
                    stream, of_stream = _stream(content)
                except UnusableError as error:
                    notes.append(f"{name} left out: {error}")
                    continue
                notes += [f"{name}: {note}" for note in of_stream]
                found[_sensor(name)].append(Part(name, stream))
    except DAMAGED as error:
        raise UnusableError(f"not a readable zip: {error}") from None
    for sensor, parts in found.items():
        found[sensor] = _in_order(parts, notes)
    return found, tuple(notes)


def _members(archive: zipfile.ZipFile, sensors: tuple[str, ...], notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted sensors' files, those of inner zips included."""
    for info in archive.infolist():
        name = PurePosixPath(info.filename).name
        inner = name.lower().endswith(".zip")
        if not inner and _sensor(name) not in sensors:
            continue
        try:
            content = archive.read(info)
            if not inner:
                yield name, content
                continue
            with zipfile.ZipFile(io.BytesIO(content)) as within:
                yield from ((f"{name}/{each}", data) for each, data in _members(within, sensors, notes))
        except DAMAGED as error:
            notes.append(f"{name} left out: {error}")


def _sensor(name: str) -> str:
    match = MEMBER_NAME.fullmatch(PurePosixPath(name).name)
    return match[1].lower() if match else ""


def _stream(content: bytes) -> tuple[Stream, tuple[str, ...]]:
    """The samples of a CSV, and a line on rows that were left out."""
    skipped = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append(row.number)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(content),
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=COLUMNS),
        )
    except pa.ArrowException as error:
        raise UnusableError(f"unreadable CSV: {str(error).splitlines()[0]}") from None
    table = table.filter(table.column("attr_time").is_valid())
    if not table.num_rows:
        raise UnusableError("no rows with a time")
    signal_Nx3 = np.stack([numbers(table, column) for column in COLUMNS[1:]], axis=1)
    notes = (f"damaged rows left out: {len(skipped)}",) if skipped else ()
    return stream_of(seconds(table, "attr_time", "ms"), signal_Nx3), notes


def _in_order(parts: list[Part], notes: list[str]) -> list[Part]:
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: part.stream.span):
        if kept and overlaps([kept[-1].stream.span], [part.stream.span]):
            notes.append(f"{part.name} left out: it was recorded at the same time as {kept[-1].name}")
        else:
            kept.append(part)
    return kept


# RealWorld: eight activities, smartphones on seven parts of the body, each with a clock of its own.

TORSO, LEG = ("-y", "+x", "+z"), ("-y", "-x", "-z")
"""HUNT4's axes of the back and of the thigh, from a phone upright with its screen to the front of the body."""


def _phone(name: str, where: str, axes: tuple[str, str, str]) -> Sensor:
    return Sensor(name, f"smartphone or smartwatch fixed to the {where}; axes derived, then corrected by gravity", axes)


CARD = DatasetCard(
    name="realworld",
    version="1.0.0",
    title="RealWorld (HAR)",
    description=(
        "15 people did 8 activities of about 10 minutes (jumping: about 1.7) with devices on 7 parts of the body, of "
        "which the accelerometers are read. The devices were not synchronized; their times are brought together here."
    ),
    citation="""@inproceedings{sztyler2016onbody,
  author = {Sztyler, Timo and Stuckenschmidt, Heiner},
  title = {On-body Localization of Wearable Devices: An Investigation of Position-Aware Activity Recognition},
  booktitle = {IEEE International Conference on Pervasive Computing and Communications (PerCom)},
  pages = {1--9},
  year = {2016},
  doi = {10.1109/PERCOM.2016.7456521},
}""",
    license="none stated in its files; its authors ask that their paper be cited",
    homepage="https://www.uni-mannheim.de/dws/research/projects/activity-recognition/dataset/dataset-realworld/",
    sensors=(
        _phone("waist", "waist", TORSO),
        _phone("thigh", "thigh", LEG),
        _phone("chest", "chest", TORSO),
        _phone("head", "head", TORSO),
        _phone("upperarm", "upper arm", TORSO),
        _phone("forearm", "forearm", TORSO),
        _phone("shin", "shin", LEG),
    ),
    default_sensors=("waist", "thigh"),
    rate_hz=50.0,
    unit="m/s2",
    classes=(
        ("climbingdown", "climbing down"),
        ("climbingup", "climbing up"),
        ("jumping", "jumping"),
        ("lying", "lying"),
        ("running", "running"),
        ("sitting", "sitting"),
        ("standing", "standing"),
        ("walking", "walking"),
    ),
    downloads=(
        Download(
            "http://wifo5-14.informatik.uni-mannheim.de/sensor/dataset/realworld2016/realworld2016_dataset.zip", None
        ),
    ),
    manual=(
        "Download realworld2016_dataset.zip from its homepage and unpack it, but not the zips within it: "
        "proband1/data/acc_walking_csv.zip and so on."
    ),
)
UPRIGHT = ("standing", "walking")
"""Activities that show which way a person's devices were fixed; the first that is there."""
ZIP_BYTES_A_SAMPLE = 120
"""Of seven devices, compressed."""


@dataclass(frozen=True)
class RealWorld(Published):
    """`proband1/data/acc_walking_csv.zip`, in it `acc_walking_waist.csv`: `id,attr_time,attr_x,attr_y,attr_z`.

    Irregularities: zips of zips (climbing of probands 4, 7 and 14), part numbers in names (`acc_walking_2_waist.csv`),
    parts that only some sensors have, no thigh for jumping of proband 6, no forearm for climbing up of proband 2. All
    files of a sensor in a zip are put in order of time, and what the chosen sensors have at the same time is
    interpolated onto one clock; names of parts do not matter. What is left out gets a note.

    Axes: derived from Android's (x to the right of the screen, y up along it, z out of it) for a phone upright with its
    screen to the front. As the publishers state nothing on it, `orientation` "gravity" turns each device of a proband
    by quarter turns so that their standing recording (else walking) lies on x at -1 g; y and z are right up to a turn
    about the vertical.

    Attributes:
        gap_limit: seconds without a sample that are bridged by a straight line; longer gaps end a recording.
        orientation: "gravity", or "declared" for the declared axes as they are.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)
    gap_limit: float = GAP_LIMIT
    orientation: Orientation = "gravity"

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        super().__post_init__()

    def files(self) -> Iterator[SourceFile]:
        """Every activity of every proband, in order of their numbers and names; no file is opened.

        Raises:
            DataError: not a folder of RealWorld.
        """
        pattern = "proband*/data/acc_*_csv.zip"
        paths = published_folder(self.path, pattern, "RealWorld").glob(pattern)
        for path in sorted(paths, key=lambda path: (_number(path.parts[-3]), path.name)):
            if ZIP_NAME.fullmatch(path.name):
                samples = path.stat().st_size // ZIP_BYTES_A_SAMPLE
                yield SourceFile(path.parts[-3], path.name.removesuffix("_csv.zip"), str(path), samples)

    def read(self, file: SourceFile) -> list[Recording]:
        """One activity: the stretches in which all chosen sensors have samples.

        Raises:
            UnusableError: not a zip, a sensor missing, far too few samples a second, no time in common, or no signal that
                can be believed.
        """
        path = Path(file.path)
        parts, notes = read_parts(path, tuple(sensor.name for sensor in self.chosen))
        if missing := [sensor.name for sensor in self.chosen if not parts[sensor.name]]:
            raise UnusableError("; ".join([f"no acceleration of the {' and the '.join(missing)} in {path.name}", *notes]))
        streams = []
        for sensor in self.chosen:
            stream = _joined(parts[sensor.name])
            streams.append(stream)
            notes += rate_notes(stream, self.card.rate_hz, sensor.name)
        stretches = common_stretches(streams, self.card.rate_hz, self.gap_limit)
        if not stretches:
            raise UnusableError(f"the {' and the '.join(parts)} have no second in common")
        recorded = [[part.stream.span for part in parts[sensor.name]] for sensor in self.chosen]
        notes += left_out(stretches, reduce(overlaps, recorded), self.gap_limit)
        kept = [stretch.span for stretch in stretches]
        notes += tuple(
            f"{part.name} left out: the other sensors have no second in common with it"
            for part in chain.from_iterable(parts.values())
            if not overlaps([part.stream.span], kept)
        )
        gravity_C, of_gravity = self._gravity(path.parent)
        label, unknown = class_indices(np.array([_activity(path)]), self.card.classes)
        recordings, unbelieved = believed(
            self,
            file,
            stretches,
            lambda at_M: np.repeat(label, len(at_M)),
            moment=lambda time: to_datetime(time, "ms"),
            gravity_C=gravity_C,
        )
        return with_notes(recordings, (*notes, *unknown, *of_gravity, *unbelieved))

    def _gravity(self, folder: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """What the channels show when the proband stands, on the declared axes, and a line where that is not known."""
        if self.orientation == "declared":
            return None, ()
        gravity_C = np.tile([-1.0, 0.0, 0.0], len(self.chosen))
        unknown = []
        for position, sensor in enumerate(self.chosen):
            upright = _upright(str(folder), sensor.name)
            if upright is None:
                unknown.append(sensor.name)
            else:
                turned = to_hunt4_axes(np.array([upright]), sensor.axes)[0]
                gravity_C[3 * position : 3 * position + 3] = turned
        note = f"no {' or '.join(UPRIGHT)} to tell how the {' and the '.join(unknown)} was fixed: axes as declared"
        return gravity_C, (note,) if unknown else ()


@lru_cache(maxsize=64)
def _upright(folder: str, sensor: str) -> tuple[float, float, float] | None:
    """The mean of a sensor's published x, y, z while its proband stands, else walks; None where neither is there."""
    for activity in UPRIGHT:
        path = Path(folder) / f"acc_{activity}_csv.zip"
        try:
            parts, _ = read_parts(path, (sensor,))
        except UnusableError:
            continue
        if parts[sensor]:
            x, y, z = _joined(parts[sensor]).signal_Nx3.mean(axis=0, dtype=np.float64).tolist()
            return x, y, z
    return None


def _joined(parts: list[Part]) -> Stream:
    return Stream(
        np.concatenate([part.stream.times_N for part in parts]),
        np.concatenate([part.stream.signal_Nx3 for part in parts]),
    )


def _activity(path: Path) -> str:
    return path.name.removeprefix("acc_").removesuffix("_csv.zip")


def _number(proband: str) -> tuple[int, str]:
    digits = proband.removeprefix("proband")
    return (int(digits) if digits.isdigit() else 0, proband)
