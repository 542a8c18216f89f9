"""RealWorld: eight activities; smartphones and a smartwatch at seven body positions, each with its own clock."""

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
from jaxtyping import Float64

from selfpab_jax.data.har.axes import SignedAxes, to_hunt4_axes
from selfpab_jax.data.har.base import find_published_folder, with_notes
from selfpab_jax.data.har.card import DatasetCard, Download, Sensor
from selfpab_jax.data.har.labels import class_indices
from selfpab_jax.data.har.resync import (
    OrientedDataset,
    SampleStream,
    lost_time_notes,
    overlaps,
    plausible_recordings,
    rate_notes,
    sample_stream,
    synced_segments,
)
from selfpab_jax.data.sources.base import Recording, SourceFile, UnusableError
from selfpab_jax.data.tables.columns import numbers, seconds
from selfpab_jax.data.tables.timestamps import to_datetime

TORSO, LEG = ("-y", "+x", "+z"), ("-y", "-x", "-z")
"""HUNT4's axes of the back and of the thigh, from a phone upright with its screen toward the front of the body."""


def _device(name: str, position: str, axes: SignedAxes) -> Sensor:
    return Sensor(
        name, f"smartphone or smartwatch fixed to the {position}; axes derived, then corrected by gravity", axes
    )


CARD = DatasetCard(
    name="realworld",
    version="1.0.0",
    title="RealWorld (HAR)",
    description=(
        "15 subjects did 8 activities of about 10 minutes (jumping: about 1.7) with devices at 7 body positions, of "
        "which the accelerometers are read. The devices were not synchronized; here they are resampled onto one clock."
    ),
    citation="""@inproceedings{sztyler2016onbody,
  author = {Sztyler, Timo and Stuckenschmidt, Heiner},
  title = {On-body Localization of Wearable Devices: An Investigation of Position-Aware Activity Recognition},
  booktitle = {IEEE International Conference on Pervasive Computing and Communications (PerCom)},
  pages = {1--9},
  year = {2016},
  doi = {10.1109/PERCOM.2016.7456521},
}""",
    license="none stated in the files; the authors ask to cite their paper",
    homepage="https://www.uni-mannheim.de/dws/research/projects/activity-recognition/dataset/dataset-realworld/",
    sensors=(
        _device("waist", "waist", TORSO),
        _device("thigh", "thigh", LEG),
        _device("chest", "chest", TORSO),
        _device("head", "head", TORSO),
        _device("upperarm", "upper arm", TORSO),
        _device("forearm", "forearm", TORSO),
        _device("shin", "shin", LEG),
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
        "Download realworld2016_dataset.zip from its homepage and unpack it, but not the zips inside: "
        "proband1/data/acc_walking_csv.zip and so on."
    ),
)
UPRIGHT_ACTIVITIES = ("standing", "walking")
"""Activities that show how a subject's devices were mounted; the first one available is used."""
ZIP_BYTES_PER_SAMPLE = 120
"""Compressed, for seven devices."""
ZIP_PATTERN = "proband*/data/acc_*_csv.zip"
ZIP_NAME = re.compile(r"acc_([a-z]+)_csv\.zip")
MEMBER_NAME = re.compile(r"acc_[a-z]+(?:_\d+)?_([a-z]+)\.csv", re.IGNORECASE)
COLUMNS = ["attr_time", "attr_x", "attr_y", "attr_z"]
ZIP_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for a damaged or encrypted archive or member."""


@dataclass(frozen=True)
class RealWorld(OrientedDataset):
    """`proband1/data/acc_walking_csv.zip`, in it `acc_walking_waist.csv`: `id,attr_time,attr_x,attr_y,attr_z`.

    Irregularities: zips of zips (climbing of probands 4, 7 and 14), part numbers in names (`acc_walking_2_waist.csv`),
    parts that only some sensors have, no thigh for jumping of proband 6, no forearm for climbing up of proband 2. All
    files of a sensor in a zip are sorted by time, and what the selected sensors recorded at the same time is
    interpolated onto one clock; names of parts do not matter. What is left out gets a note.

    Axes: derived from Android's (x to the right of the screen, y up along it, z out of it) for a phone upright with its
    screen toward the front, as the publishers do not state them. With `orientation` "gravity" each device of a proband
    is rotated so that the mean of their standing recording (else walking) is on x at about -1 g.

    Attributes:
        gap_limit: see `ResyncedDataset`.
        orientation: see `OrientedDataset`.
    """

    CARDS: ClassVar[tuple[DatasetCard, ...]] = (CARD,)

    def files(self) -> Iterator[SourceFile]:
        """Every activity of every proband, sorted by their numbers and names; no file is opened.

        Raises:
            DataError: not a folder of RealWorld.
        """
        paths = find_published_folder(self.path, ZIP_PATTERN, "RealWorld").glob(ZIP_PATTERN)
        for path in sorted(paths, key=lambda path: (_number(path.parts[-3]), path.name)):
            if ZIP_NAME.fullmatch(path.name):
                samples = path.stat().st_size // ZIP_BYTES_PER_SAMPLE
                yield SourceFile(path.parts[-3], path.name.removesuffix("_csv.zip"), str(path), samples)

    def read(self, file: SourceFile) -> list[Recording]:
        """One activity: the segments in which all selected sensors have samples.

        Raises:
            UnusableError: not a zip, a sensor missing, a far too low sampling rate, no common time, or no plausible
                signal.
        """
        path = Path(file.path)
        members, notes = read_members(path, tuple(sensor.name for sensor in self.selected_sensors))
        if missing := [sensor for sensor, of_sensor in members.items() if not of_sensor]:
            reason = f"sensor missing: no acceleration of the {' and the '.join(missing)} in {path.name}"
            raise UnusableError("; ".join([reason, *notes]))
        streams = []
        for sensor, of_sensor in members.items():
            stream = _joined(of_sensor)
            streams.append(stream)
            notes += rate_notes(stream, self.card.rate_hz, sensor)
        segments = synced_segments(streams, self.card.rate_hz, self.gap_limit)
        if not segments:
            raise UnusableError(f"no common time: the {' and the '.join(members)} share no second")
        recorded = [[member.stream.span for member in of_sensor] for of_sensor in members.values()]
        notes += lost_time_notes(segments, reduce(overlaps, recorded), self.gap_limit)
        kept = [segment.span for segment in segments]
        notes += tuple(
            f"{member.name} left out: it shares no second with the other sensors"
            for member in chain.from_iterable(members.values())
            if not overlaps([member.stream.span], kept)
        )
        gravity_C, gravity_notes = self._gravity(path.parent)
        label_1, unknown = class_indices(np.array([_activity(path)]), self.card.classes)
        recordings, implausible = plausible_recordings(
            self,
            file,
            segments,
            lambda at_M: np.repeat(label_1, len(at_M)),
            start_at=lambda time: to_datetime(time, "ms"),
            gravity_C=gravity_C,
        )
        return with_notes(recordings, (*notes, *unknown, *gravity_notes, *implausible))

    def _gravity(self, folder: Path) -> tuple[Float64[np.ndarray, " C"] | None, tuple[str, ...]]:
        """Mean reading while the proband stands, on the declared axes, and a note if it is not known."""
        if self.orientation == "declared":
            return None, ()
        gravity_C = np.tile([-1.0, 0.0, 0.0], len(self.selected_sensors))
        unknown = []
        for position, sensor in enumerate(self.selected_sensors):
            upright = _upright_mean(str(folder), sensor.name)
            if upright is None:
                unknown.append(sensor.name)
            else:
                gravity_C[3 * position : 3 * position + 3] = to_hunt4_axes(np.array([upright]), sensor.axes)[0]
        if not unknown:
            return gravity_C, ()
        activities, names = " or ".join(UPRIGHT_ACTIVITIES), " and the ".join(unknown)
        return gravity_C, (f"no {activities} to show how the {names} was mounted: axes as declared",)


@lru_cache(maxsize=64)
def _upright_mean(folder: str, sensor: str) -> tuple[float, float, float] | None:
    """Mean of a sensor's published x, y, z while its proband stands, else walks; None if there is neither."""
    for activity in UPRIGHT_ACTIVITIES:
        path = Path(folder) / f"acc_{activity}_csv.zip"
        try:
            members, _ = read_members(path, (sensor,))
        except UnusableError:
            continue
        if members[sensor]:
            x, y, z = _joined(members[sensor]).signal_Nx3.mean(axis=0, dtype=np.float64).tolist()
            return x, y, z
    return None


# Reading the archives


@dataclass(frozen=True)
class ZipMember:
    """A sensor's file in an archive: its name, after that of an inner zip, and its samples."""

    name: str
    stream: SampleStream


def read_members(path: Path, sensors: tuple[str, ...]) -> tuple[dict[str, list[ZipMember]], tuple[str, ...]]:
    """The readable files of each given sensor in a zip, in order of time, and a note on each other one.

    A file that overlaps an earlier one of its sensor in time is left out with a note.

    Raises:
        UnusableError: not a zip.
    """
    found: dict[str, list[ZipMember]] = {sensor: [] for sensor in sensors}
    notes = []
    try:
        with zipfile.ZipFile(path) as archive:
            for name, content in _contents(archive, sensors, notes):
                try:
                    stream, stream_notes = _parse_csv(content)
                except UnusableError as error:
                    notes.append(f"{name} left out: {error}")
                    continue
                notes += [f"{name}: {note}" for note in stream_notes]
                found[_sensor_of(name)].append(ZipMember(name, stream))
    except ZIP_ERRORS as error:
        raise UnusableError(f"not a readable zip: {error}") from None
    return {sensor: _without_overlaps(members, notes) for sensor, members in found.items()}, tuple(notes)


def _contents(archive: zipfile.ZipFile, sensors: tuple[str, ...], notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the given sensors' files, also of those in inner zips."""
    for info in archive.infolist():
        name = PurePosixPath(info.filename).name
        inner = name.lower().endswith(".zip")
        if not inner and _sensor_of(name) not in sensors:
            continue
        try:
            content = archive.read(info)
            if not inner:
                yield name, content
                continue
            with zipfile.ZipFile(io.BytesIO(content)) as within:
                yield from ((f"{name}/{member}", data) for member, data in _contents(within, sensors, notes))
        except ZIP_ERRORS as error:
            notes.append(f"{name} left out: {error}")


def _sensor_of(name: str) -> str:
    match = MEMBER_NAME.fullmatch(PurePosixPath(name).name)
    return match[1].lower() if match else ""


def _parse_csv(content: bytes) -> tuple[SampleStream, tuple[str, ...]]:
    """The samples of a CSV file, and a note on rows that were left out."""
    damaged = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        damaged.append(row.number)
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
        raise UnusableError("too short: no rows with a time")
    signal_Nx3 = np.stack([numbers(table, column) for column in COLUMNS[1:]], axis=1)
    notes = (f"damaged rows left out: {len(damaged)}",) if damaged else ()
    return sample_stream(seconds(table, "attr_time", "ms"), signal_Nx3), notes


def _without_overlaps(members: list[ZipMember], notes: list[str]) -> list[ZipMember]:
    kept: list[ZipMember] = []
    for member in sorted(members, key=lambda member: member.stream.span):
        if kept and overlaps([kept[-1].stream.span], [member.stream.span]):
            notes.append(f"{member.name} left out: it was recorded at the same time as {kept[-1].name}")
        else:
            kept.append(member)
    return kept


def _joined(members: list[ZipMember]) -> SampleStream:
    return SampleStream(
        np.concatenate([member.stream.times_N for member in members]),
        np.concatenate([member.stream.signal_Nx3 for member in members]),
    )


def _activity(path: Path) -> str:
    return path.name.removeprefix("acc_").removesuffix("_csv.zip")


def _number(proband: str) -> tuple[int, str]:
    digits = proband.removeprefix("proband")
    return (int(digits) if digits.isdigit() else 0, proband)
