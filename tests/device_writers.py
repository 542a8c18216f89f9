"""Writers of device files, after the published descriptions of their formats.

Checked once against independent readers: .cwa and .bin with scikit-digital-health, .gt3x with pygt3x.
"""

import struct
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

EPOCH = datetime(1970, 1, 1)
START = datetime(2024, 3, 4, 10, 0, 0)


def seconds(time: datetime) -> float:
    return (time - EPOCH).total_seconds()


# Axivity: https://github.com/openmovementproject/openmovement/blob/master/Docs/ax3/ax3-technical.md

CWA_SAMPLES = {"AX3": 120, "AX6": 40}
CWA_RATE_CODE = 0x4A  # 100 Hz, 8 g


def write_cwa(
    path: Path, counts_Nx3: np.ndarray, block_times: list[float], kind: str = "AX3", damaged: int = -1
) -> None:
    """Counts of 1/256 g (AX3, 10 bits) or 1/2048 g (AX6), in blocks of 120 or 40 samples."""
    header = bytearray(b"\xff" * 1024)
    header[:11] = struct.pack("<2sHBHI", b"MD", 1020, {"AX3": 0x00, "AX6": 0x64}[kind], 1234, 7)
    header[11:13] = struct.pack("<H", 0)
    header[13:25] = struct.pack("<III", 0, 0, 0)
    header[35], header[36], header[41] = {"AX3": 0x00, "AX6": 0x05}[kind], CWA_RATE_CODE, 44
    size = CWA_SAMPLES[kind]
    sectors = []
    for number, time in enumerate(block_times):
        counts_nx3 = counts_Nx3[number * size : (number + 1) * size]
        sectors.append(_cwa_sector(number, time, counts_nx3, kind))
    if damaged >= 0:
        sectors[damaged] = sectors[damaged][:100] + b"\x55" + sectors[damaged][101:]
    path.write_bytes(bytes(header) + b"".join(sectors))


def _cwa_sector(number: int, time: float, counts_nx3: np.ndarray, kind: str) -> bytes:
    date = EPOCH + timedelta(seconds=int(time))
    stamp = (date.year - 2000) << 26 | date.month << 22 | date.day << 17
    stamp |= date.hour << 12 | date.minute << 6 | date.second
    fraction = int((time - int(time)) * 32768)
    before = -((fraction * 2 * 100) >> 16)  # the fraction's share in whole samples, as older readers expect
    light = 3 << 13 if kind == "AX6" else 0
    axes = 0x62 if kind == "AX6" else 0x30
    head = struct.pack("<2sHHIII", b"AX", 508, fraction | 0x8000, 7, number, stamp)
    head += struct.pack("<HHBBBBhH", light, 0, 0, 0, CWA_RATE_CODE, axes, before, len(counts_nx3))
    if kind == "AX6":
        data = np.concatenate([np.zeros_like(counts_nx3), counts_nx3], axis=1).astype("<i2").tobytes()
    else:
        x, y, z = (counts_nx3.T & 0x3FF).astype("<u4")
        data = (z << 20 | y << 10 | x).astype("<u4").tobytes()
    sector = head + data.ljust(480, b"\0")
    return sector + struct.pack("<H", -int(np.frombuffer(sector, "<u2").sum()) & 0xFFFF)


# ActiGraph: https://github.com/actigraph/GT3X-File-Format and https://github.com/actigraph/NHANES-GT3X-File-Format


def _info(start: datetime, stop: datetime, rate_hz: int, serial: str, scale: float | None) -> str:
    def ticks(time: datetime) -> int:
        return int((time - datetime(1, 1, 1)).total_seconds()) * 10_000_000

    lines = [f"Serial Number: {serial}", "Device Type: Link", f"Sample Rate: {rate_hz}", f"Start Date: {ticks(start)}"]
    lines += [f"Stop Date: {ticks(stop)}", f"Last Sample Time: {ticks(stop)}", "TimeZone: 00:00:00"]
    lines += [f"Download Date: {ticks(stop + timedelta(days=1))}", "Firmware: 1.7.2"]
    return "\r\n".join(lines + ([f"Acceleration Scale: {scale}"] if scale else []) + [""])


def pack_12_bit(counts_nx3: np.ndarray) -> bytes:
    bits = "".join(f"{number & 0xFFF:012b}" for number in counts_nx3[:, [1, 0, 2]].ravel().tolist())
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def gt3x_record(kind: int, time: float, payload: bytes) -> bytes:
    record = struct.pack("<BBIH", 0x1E, kind, int(time), len(payload)) + payload
    return record + bytes([int(np.bitwise_xor.reduce(np.frombuffer(record, np.uint8))) ^ 0xFF])


def write_gt3x(path: Path, log: bytes, last: datetime, rate_hz: int = 30, calibration: str | None = None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("info.txt", _info(START, last, rate_hz, "TAS1E47150641", 256.0))
        archive.writestr("log.bin", log)
        if calibration:
            archive.writestr("calibration.json", calibration)


def gt3x_log(counts_Nx3: np.ndarray, kind: int, rate_hz: int = 30, at: list[int] | None = None) -> bytes:
    """A record of samples for each second (of those given, in seconds after the start)."""
    records = []
    for number, second in enumerate(range(len(counts_Nx3) // rate_hz) if at is None else at):
        counts_nx3 = counts_Nx3[number * rate_hz : (number + 1) * rate_hz]
        payload = counts_nx3.astype("<i2").tobytes() if kind == 0x1A else pack_12_bit(counts_nx3)
        records.append(gt3x_record(kind, seconds(START) + second, payload))
    return b"".join(records)


def write_nhanes_gt3x(path: Path, counts_Nx3: np.ndarray, last: datetime, rate_hz: int = 30) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("info.txt", _info(START, last, rate_hz, "NEO1C04110003", None))
        archive.writestr("activity.bin", pack_12_bit(counts_Nx3))
        archive.writestr("lux.bin", b"\0\0")
        archive.writestr("log.txt", "")


# GENEActiv: the text pages of "GENEActiv Instructions", appendix on the .bin format

BIN_HEADER = """Device Identity
Device Unique Serial Code:012345
Device Type:GENEActiv
Device Model:1.2
Device Firmware Version:Ver06.17 15June23
Calibration Date:2023-09-08 14:14:04:000

Device Capabilities
{capabilities}

Configuration Info
Measurement Frequency:{rate:g} Hz
Measurement Period:168 Hours
Start Time:{start}
Time Zone:GMT +00:00

Trial Info
{trial}

Subject Info
{subject}

Calibration Data
x gain:25000
x offset:-1000
y gain:25000
y offset:500
z gain:25000
z offset:0
Volts:54
Lux:997

Memory Status
Number of Pages:{pages}

Recorded Data
"""
BIN_PAGE_SAMPLES = 300


def write_geneactiv(
    path: Path, counts_Nx3: np.ndarray, rate_hz: float, page_times: list[float], pages: int | None = None
) -> None:
    def text(time: float) -> str:
        date = EPOCH + timedelta(seconds=time)
        return f"{date:%Y-%m-%d %H:%M:%S}:{round(date.microsecond / 1000):03d}"

    parts = [
        BIN_HEADER.format(
            capabilities="\n".join(f"Field {n}:0" for n in range(9)),
            trial="\n".join(f"Field {n}:" for n in range(10)),
            subject="\n".join(f"Field {n}:" for n in range(8)),
            rate=rate_hz,
            start=text(page_times[0]),
            pages=len(page_times) if pages is None else pages,
        )
    ]
    # The last line of the header begins the first page.
    parts[0] = parts[0].removesuffix("Recorded Data\n")
    for number, time in enumerate(page_times):
        counts = counts_Nx3[number * BIN_PAGE_SAMPLES : (number + 1) * BIN_PAGE_SAMPLES].tolist()
        data = "".join(f"{x & 0xFFF:03X}{y & 0xFFF:03X}{z & 0xFFF:03X}000" for x, y, z in counts)
        lines = ["Recorded Data", "Device Unique Serial Code:012345", f"Sequence Number:{number}"]
        lines += [f"Page Time:{text(time)}", "Unassigned:", "Temperature:25.0", "Battery voltage:4.0000"]
        lines += ["Device Status:Recording", f"Measurement Frequency:{rate_hz:.1f}", data]
        parts.append("\n".join(lines) + "\n")
    path.write_text("".join(parts))
