"""ActiGraph's .gt3x of both generations, and the preamble of its CSV exports.

A .gt3x is a zip. Newer ones hold `log.bin`, a series of records with a time in seconds each; those of the GT3X+ (NHANES
2011-2014) hold `activity.bin`, samples without times. They are read here, because actfast 1.3 reads one of the three
kinds of records with samples (ACTIVITY): of files with another it gives no samples, and no error. Formats:
https://github.com/actigraph/GT3X-File-Format and https://github.com/actigraph/NHANES-GT3X-File-Format.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from selfpab_jax.data.sources.base import EPOCH, UnusableError
from selfpab_jax.data.sources.devices.samples import DeviceBlocks

TICKS = 10_000_000
"""Units of a second in which info.txt gives times, ..."""
TICKS_EPOCH = datetime(1, 1, 1)
"""... since this time."""
SEPARATOR = 0x1E
HEADER = struct.Struct("<BBIH")
EVENT, ACTIVITY, ACTIVITY2, ACTIVITY3 = 0x03, 0x00, 0x1A, 0x1B
SLEEP_BEGINS, SLEEP_ENDS = b"\x08", b"\x09"
PACKED_ORDER = [1, 0, 2]
"""The 12-bit samples of ACTIVITY records and activity.bin are stored as y, x, z."""
COUNTS_PER_G = {"NEO": 341.0, "CLE": 341.0}
COUNTS_PER_G_LATER = 256.0
"""By the first letters of the serial number, where info.txt has no Acceleration Scale."""
JOINED_RECORDS = 4096
"""Records that are unpacked at once."""


def read_gt3x(path: Path) -> DeviceBlocks:
    """A recording of an ActiGraph; records with a wrong checksum are left out and noted.

    Raises:
        UnusableError: the file cannot be read, or holds samples that the maker's software has not calibrated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            info = _info(archive.read("info.txt").decode("utf-8-sig", "replace"))
            if (
                "calibration.json" in names
                and json.loads(archive.read("calibration.json")).get("isCalibrated") is False
            ):
                raise UnusableError(
                    "uncalibrated: its samples are raw counts; export it as CSV with ActiGraph's software"
                )
            rate_hz = float(info["Sample Rate"])
            if "log.bin" in names:
                return _from_log(archive.read("log.bin"), info, rate_hz)
            if "activity.bin" in names:
                return _from_activity(archive.read("activity.bin"), info, rate_hz)
    except KeyError as missing:
        raise UnusableError(f"unreadable: a .gt3x without {str(missing).strip(chr(34))}") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as reason:
        raise UnusableError(f"unreadable: {reason}") from None
    raise UnusableError("unreadable: a .gt3x without log.bin or activity.bin")


def _info(text: str) -> dict[str, str]:
    return dict(line.strip().split(": ", 1) for line in text.splitlines() if ": " in line)


def _seconds(info: dict[str, str], *fields: str) -> float | None:
    """Seconds since 1970 of the first of these fields that has a time."""
    for field in fields:
        if ticks := int(info.get(field, "0") or 0):
            return ticks / TICKS - (EPOCH - TICKS_EPOCH).total_seconds()
    return None


def _scale(info: dict[str, str]) -> float:
    stated = float(info.get("Acceleration Scale", "0") or 0)
    return stated or COUNTS_PER_G.get(info.get("Serial Number", "")[:3], COUNTS_PER_G_LATER)


def _from_activity(data: bytes, info: dict[str, str], rate_hz: float) -> DeviceBlocks:
    """The GT3X+: samples from the start time on, without any other time."""
    start_s, end_s = _seconds(info, "Start Date"), _seconds(info, "Last Sample Time", "Stop Date", "Download Date")
    if start_s is None:
        raise UnusableError("unreadable: info.txt has no Start Date")
    signal_Nx3 = (_unpack_12_bit(data)[:, PACKED_ORDER] / _scale(info)).astype(np.float32)
    return DeviceBlocks(
        starts_B=np.array([start_s]),
        counts_B=np.array([len(signal_Nx3)]),
        signal_Nx3=signal_Nx3,
        rate_hz=rate_hz,
        serial=info.get("Serial Number", ""),
        device=f"ActiGraph {info.get('Device Type', '')}".strip(),
        expected=None if end_s is None else max(0.0, end_s - start_s) * rate_hz,
        notes=("times: the file has a start time only, the others follow from the nominal rate",),
    )


class _Record(NamedTuple):
    kind: int
    time_s: int
    payload: bytes


def _from_log(data: bytes, info: dict[str, str], rate_hz: float) -> DeviceBlocks:
    damage: list[int] = []
    starts: list[int] = []
    counts: list[np.ndarray] = []
    signals = [np.empty((0, 3), np.float32)]
    idle: list[tuple[float, float]] = []
    asleep_s, last_s = None, None
    waiting: list[_Record] = []

    def unpack() -> None:
        counts_b, signal_nx3 = _unpack(waiting)
        counts.append(counts_b)
        signals.append((signal_nx3 / _scale(info)).astype(np.float32))
        waiting.clear()

    for record in _records(data, damage):
        last_s = record.time_s
        if record.kind == EVENT and record.payload == SLEEP_BEGINS:
            asleep_s = record.time_s
        elif record.kind == EVENT and record.payload == SLEEP_ENDS and asleep_s is not None:
            idle.append((asleep_s, record.time_s))
            asleep_s = None
        # A record of one byte marks that the device was docked.
        elif record.kind in (ACTIVITY, ACTIVITY2, ACTIVITY3) and len(record.payload) > 1:
            if waiting and (waiting[-1].kind != record.kind or len(waiting) == JOINED_RECORDS):
                unpack()
            starts.append(record.time_s)
            waiting.append(record)
    unpack()
    if asleep_s is not None and last_s is not None and last_s > asleep_s:
        idle.append((asleep_s, last_s))
    start_s, end_s = _seconds(info, "Start Date"), _seconds(info, "Last Sample Time")
    if end_s == _seconds(info, "Download Date"):
        end_s = None  # the device was read while it ran; its last sample is not known
    expected = None
    if start_s is not None and end_s is not None:
        expected = max(0.0, end_s - start_s - sum(end - begin for begin, end in idle)) * rate_hz
    notes = (
        (f"damaged: {len(damage)} places in log.bin left out, {sum(damage)} of {len(data)} bytes",) if damage else ()
    )
    return DeviceBlocks(
        starts_B=np.array(starts, np.float64),
        counts_B=np.concatenate(counts),
        signal_Nx3=np.concatenate(signals),
        rate_hz=rate_hz,
        serial=info.get("Serial Number", ""),
        device=f"ActiGraph {info.get('Device Type', '')}".strip(),
        expected=expected,
        idle=tuple(idle),
        notes=notes,
    )


def _records(data: bytes, damage: list[int]) -> Iterator[_Record]:
    """The records whose checksum is right; the bytes of each damaged place are added to `damage`.

    A record is a separator, kind, time, size, payload and the inverted parity of all these bytes.
    """
    at, view, bad_from = 0, np.frombuffer(data, np.uint8), None
    while at + HEADER.size < len(data):
        separator, kind, time_s, size = HEADER.unpack_from(data, at)
        end = at + HEADER.size + size
        if separator == SEPARATOR and end < len(data) and _parity(view[at:end]) ^ 0xFF == data[end]:
            if bad_from is not None:
                damage.append(at - bad_from)
                bad_from = None
            yield _Record(kind, time_s, data[at + HEADER.size : end])
            at = end + 1
            continue
        bad_from = at if bad_from is None else bad_from
        at = data.find(bytes([SEPARATOR]), at + 1)
        if at < 0:
            break
    else:
        if bad_from is None and at < len(data):
            bad_from = at
    if bad_from is not None:
        damage.append(len(data) - bad_from)


def _parity(bytes_n: np.ndarray) -> int:
    return int(np.bitwise_xor.reduce(bytes_n))


def _unpack(records: list[_Record]) -> tuple[np.ndarray, Float32[np.ndarray, "n 3"]]:
    """Samples of each record, and all of them in counts, x, y, z."""
    if not records:
        return np.empty(0, np.int64), np.empty((0, 3), np.float32)
    kind = records[0].kind
    bits = 16 if kind == ACTIVITY2 else 12
    sizes_b = np.array([len(record.payload) for record in records])
    counts_b = sizes_b * 8 // (3 * bits)
    # Two 12-bit samples fill 9 bytes; records that end within a byte, or are cut, are unpacked one by one.
    whole = 6 if bits == 16 else 9
    parts = (
        [b"".join(record.payload for record in records)]
        if (sizes_b % whole == 0).all()
        else [r.payload for r in records]
    )
    if bits == 16:
        signal_nx3 = np.concatenate([np.frombuffer(part[: len(part) // 6 * 6], "<i2").reshape(-1, 3) for part in parts])
        return counts_b, signal_nx3.astype(np.float32)
    signal_nx3 = np.concatenate([_unpack_12_bit(part) for part in parts])
    return counts_b, signal_nx3[:, PACKED_ORDER] if kind == ACTIVITY else signal_nx3


def _unpack_12_bit(data: bytes) -> Float32[np.ndarray, "n 3"]:
    """Samples of three signed 12-bit numbers each, the most significant bits first."""
    count = len(data) * 8 // 36
    padded = np.frombuffer(data + b"\0" * (-len(data) % 3), np.uint8).reshape(-1, 3).astype(np.int16)
    numbers = np.stack([padded[:, 0] << 4 | padded[:, 1] >> 4, (padded[:, 1] & 15) << 8 | padded[:, 2]], axis=1).ravel()
    signed = np.where(numbers > 2047, numbers - 4096, numbers)
    return signed[: 3 * count].reshape(-1, 3).astype(np.float32)


class ActigraphPreamble(NamedTuple):
    """What stands above the samples of an ActiGraph CSV export.

    Attributes:
        start: time of the first sample on the recorder's clock.
        rate_hz: sampling rate; rows of exports without timestamps follow each other at it.
        header_row: number of the row (from 0) after the preamble: the columns' names, or the first sample.
        has_names: whether that row has the columns' names (`Timestamp`, `Accelerometer X`, ...).
    """

    start: datetime
    rate_hz: float
    header_row: int
    has_names: bool


PREAMBLE_ROWS = 12
RULE = "----------"
DATE_ORDERS = {"M": ("month", "day", "year"), "d": ("day", "month", "year"), "y": ("year", "month", "day")}


def actigraph_preamble(lines: list[str]) -> ActigraphPreamble | None:
    """The preamble of an ActiGraph CSV export, or None where a table has none.

    Args:
        lines: the table's first rows, at least 12.

    Raises:
        UnusableError: the export has activity counts rather than samples, or its start cannot be read.
    """
    if not lines or not lines[0].lstrip('\ufeff"').startswith(RULE) or "actigraph" not in lines[0].lower():
        return None
    last = next(
        (row for row in range(1, min(PREAMBLE_ROWS, len(lines))) if lines[row].lstrip('"').startswith(RULE)), None
    )
    if last is None:
        raise UnusableError("unreadable: an ActiGraph export whose preamble has no end (a row of dashes)")
    text = "\n".join(line.strip().strip('",;\t ') for line in lines[:last])
    if not (rate := re.search(r"\bat (\d+(?:[.,]\d+)?) ?Hz|^Sample Rate:?\s*(\d+(?:[.,]\d+)?)", text, re.MULTILINE)):
        raise UnusableError(
            "activity counts: the ActiGraph export has no sampling rate; export raw data (`Export Raw .gt3x to CSV`)"
        )
    after = lines[last + 1] if last + 1 < len(lines) else ""
    return ActigraphPreamble(
        start=_start(text),
        rate_hz=float((rate[1] or rate[2]).replace(",", ".")),
        header_row=last + 1,
        has_names=bool(re.search(r"[^\W\d_]{2,}", after)),
    )


def _start(text: str) -> datetime:
    """Start of an export. Its stated date format is not always that of its dates, so that both dates must fit it."""
    time = re.search(r"^Start Time:?\s*(\d{1,2}):(\d{2}):(\d{2})(?:[.,]\d+)?\s*([AaPp][Mm])?", text, re.MULTILINE)
    dates = re.findall(r"^(?:Start|Download) Date:?\s*(\d+)\D(\d+)\D(\d+)", text, re.MULTILINE)
    stated = re.search(r"date format ([Mdy])", text)
    if time is None or not dates:
        raise UnusableError("unreadable: the preamble of the ActiGraph export has no Start Time or Start Date")
    first = "y" if len(dates[0][0]) == 4 else stated[1] if stated else "M"
    for order in dict.fromkeys([first, "M", "d"]):
        try:
            days = [_day(order, date) for date in dates]
        except ValueError:
            continue
        hours = int(time[1]) % 12 + 12 * (time[4].lower() == "pm") if time[4] else int(time[1])
        return days[0] + timedelta(hours=hours, minutes=int(time[2]), seconds=int(time[3]))
    raise UnusableError(f"unreadable: {'/'.join(dates[0])} is not a date")


def _day(order: str, date: tuple[str, str, str]) -> datetime:
    numbers = dict(zip(DATE_ORDERS[order], map(int, date), strict=True))
    return datetime(numbers["year"], numbers["month"], numbers["day"])
