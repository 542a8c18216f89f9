"""Faulty and unusual files in every command: what one makes of them, the others make, too.

A folder holds files that need the same options, each of the same walk. `plain` is the clean one.
"""

import gzip
import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from table_writers import CLEAN, CLOCK, NAMES, START, signal_at, stamps, table

from selfpab_jax import read_recording
from selfpab_jax.cli.main import main
from selfpab_jax.data.har.registry import open_dataset
from selfpab_jax.data.records.dataset import open_records
from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.files import stem_of, visible_files
from selfpab_jax.data.sources.report import FileReport
from selfpab_jax.errors import ConfigError, DataError
from selfpab_jax.features.files import read_features
from selfpab_jax.features.streaming import quality_path, skipped_path
from selfpab_jax.probe.heads.saved import SavedHead, write_head


def labeled(signal: np.ndarray) -> np.ndarray:
    return np.column_stack([signal, np.ones(len(signal))])


LABELED = labeled(CLEAN)
UNIX = (START - datetime(1970, 1, 1)).total_seconds()


def text(signal: np.ndarray = LABELED, times: np.ndarray = CLOCK, **options: Any) -> str:
    """A table with a column of labels."""
    header = options.get("delimiter", ",").join(["timestamp", *NAMES, "label"])
    return table(times, signal, **{"header": header, **options})


def lines(change: Callable[[list[str]], list[str]]) -> str:
    return "\n".join(change(text().splitlines())) + "\n"


def spoiled(rows: slice, value: Any, columns: slice = slice(0, 6)) -> np.ndarray:
    signal = LABELED.copy()
    signal[rows, columns] = value
    return signal


def parquet(path: Path) -> None:
    frame = pd.DataFrame(LABELED.round(5), columns=pd.Index([*NAMES, "label"]))
    frame.insert(0, "timestamp", pd.to_datetime(stamps(CLOCK)))
    frame.to_parquet(path)


def numbered(times: np.ndarray, signal: np.ndarray = LABELED) -> str:
    rows = [",".join(map(str, [time, *row])) for time, row in zip(times.tolist(), signal.round(5), strict=True)]
    return "\n".join([",".join(["timestamp", *NAMES, "label"]), *rows]) + "\n"


def walk_at(rate_hz: float) -> str:
    times = np.arange(round(120 * rate_hz)) / rate_hz
    return text(labeled(signal_at(times)), times)


class Expected(NamedTuple):
    """What becomes of a file.

    `refused` is a word of the reason. Otherwise the output is that of the clean file (unless `differs`), but for the
    seconds that are cut, by reason, and reports a note with this word.
    """

    content: str | bytes | Callable[[Path], None]
    refused: str = ""
    cut_s: dict[str, float] = {}  # noqa: RUF012
    used_s: float = 120.0
    differs: bool = False
    note: str = ""


def same(content: str | bytes | Callable[[Path], None]) -> Expected:
    return Expected(content)


PLAIN = {"plain.csv": same(text())}
IDLE = slice(2000, 4700)
GROUPS: dict[str, tuple[dict[str, Any], dict[str, Expected]]] = {
    "no options": (
        {},
        {
            **PLAIN,
            "mark.csv": same(b"\xef\xbb\xbf" + text().encode()),
            "windows.csv": same(text().replace("\n", "\r\n")),
            "semicolons.csv": same(text(delimiter=";", decimal=",")),
            "utf16.csv": same(text().encode("utf-16")),
            "sep.csv": same("sep=;\n" + text(delimiter=";", decimal=",")),
            "preamble.csv": same("------ Data File made for a test ------\nSerial Number: X\n\n---\n" + text()),
            "spaces.csv": same(text().replace(",", ", ")),
            "blank_lines.csv": same(text().replace("\n", "\n\n", 40)),
            "header_again.csv": same(lines(lambda rows: [*rows[:3000], rows[0], *rows[3000:]])),
            "zone_name.csv": same(text(style="%Y-%m-%d %H:%M:%S.%f+0100 [Europe/London]")),
            "zone_offset.csv": same(text(style="%Y-%m-%dT%H:%M:%S.%f+02:00")),
            "zeros_behind.csv": same(text().encode() + bytes(5000)),
            "packed.csv.gz": same(gzip.compress(text().encode(), mtime=0)),
            "LETTERS.CSV": same(text() + " \n"),
            "letters2.Parquet": same(parquet),
            "swapped.csv": same(lines(lambda rows: [*rows[:500], rows[501], rows[500], *rows[502:]])),
            "cut_off.csv": Expected(text()[:-30], cut_s={"malformed rows": 0.02}, used_s=119.98, differs=True),
            "nan.csv": Expected(text(spoiled(slice(700, 701), np.nan)), cut_s={"NaN": 0.02}),
            "beyond.csv": Expected(text(spoiled(slice(700, 701), 16.04)), cut_s={"beyond 16 g": 0.02}),
            "sleeps_at_0.csv": Expected(text(spoiled(IDLE, 0)), cut_s={"stands still": 54}, used_s=66, differs=True),
            "sleeps_at_last.csv": Expected(
                text(spoiled(IDLE, CLEAN[1999])), cut_s={"stands still": 54}, used_s=66, differs=True
            ),
            "autumn.csv": Expected(text(times=np.where(CLOCK < 60, CLOCK, CLOCK - 3600)), differs=True),
            "still_in_ms2.csv": Expected(text(labeled(np.tile([-9.81, 0.1, 0.2], (6000, 2)) + 0.02 * CLEAN)), "m/s2"),
            "no_gravity.csv": Expected(text(labeled(CLEAN - CLEAN.mean(axis=0))), "gravity"),
            "in_mg.csv": Expected(text(scale=1000), "mg"),
            "column_twice.csv": Expected(text().replace("\n", ",1\n").replace("label,1", "label,back_x", 1), "twice"),
            "zones_mixed.csv": Expected(
                lines(lambda rows: [*rows[:3000], *(row.replace(",", "+01:00,", 1) for row in rows[3000:])]), "zone"
            ),
            "no_header.csv": Expected(text(header=""), "no header"),
            "day_or_month.csv": Expected(text(style="%d/%m/%Y %H:%M:%S.%f"), "day_first"),
            "slow.csv": Expected(text(times=2 * CLOCK), "25 Hz"),
            "plain_copy.csv": Expected(text(), "same content as"),
        },
    ),
    "mg": (
        {"unit": "mg"},
        {
            "plain.csv": same(text(scale=1000)),
            "whole.csv": same(re.sub(r"\.00000(?=[,\n])", "", text(np.round(1000 * LABELED)))),
            "in_g.csv": Expected(text(), "wrong unit"),
        },
    ),
    "day first": (
        {"day_first": True},
        {
            **PLAIN,
            "points.csv": same(text(style="%d.%m.%Y %H:%M:%S.%f")),
            "half.csv": same(text(style="%d/%m/%Y %I:%M:%S.%f %p")),
        },
    ),
    "by number": (
        {
            "timestamp_column": "1",
            "label_column": "8",
            "columns": ",".join(f"{name}={place + 2}" for place, name in enumerate(NAMES)),
        },
        {"plain.csv": same(text(header=""))},
    ),
    "seconds": (
        {"timestamp_unit": "s"},
        {
            "plain.csv": same(numbered(UNIX + CLOCK)),
            "float32.csv": Expected(numbered((UNIX + CLOCK).astype(np.float32)), note="stand still"),
        },
    ),
    "100 Hz": (
        {"rate": 100.0},
        {
            "plain.csv": same(walk_at(100.0)),
            "at_98.csv": Expected(walk_at(98.0), note="resampled by time"),
            "at_50.csv": Expected(text(), "50 Hz"),
        },
    ),
}
HIDDEN = ("._plain.csv", ".ipynb_checkpoints/plain.csv", "~$plain.csv")
CASES = [(group, name) for group, (_, files) in GROUPS.items() for name in files]


class Outcome(NamedTuple):
    """What a door made of one file.

    Attributes:
        reason: why it was not used; empty where it was.
        report: its line of the quality report.
        output: of one kind for each door.
    """

    reason: str
    report: dict[str, Any] = {}  # noqa: RUF012
    output: np.ndarray = np.empty(0)


Door = Callable[[Path, dict[str, Any], Path, Path, Path], dict[str, Outcome]]
"""Takes the folder of files, the options, and for what needs them a model, a head and a folder for the output."""


def words(options: dict[str, Any]) -> list[str]:
    return [f"--{name}={json.dumps(value) if not isinstance(value, str) else value}" for name, value in options.items()]


def without_label(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "label_column"}


def outcomes(reasons: dict[str, str], quality: Path, outputs: dict[str, np.ndarray]) -> dict[str, Outcome]:
    """By name of the file; outputs by its stem."""
    lines = map(json.loads, (quality / "quality.jsonl").read_text().splitlines())
    reports = {Path(report["file"]).name: report for report in lines}
    used = {
        name: Outcome("", report, outputs[stem])
        for name, report in reports.items()
        if (stem := stem_of(Path(name))) in outputs
    }
    return {name: Outcome(reason) for name, reason in reasons.items()} | used


def by_python(folder: Path, options: dict[str, Any], *_: Path) -> dict[str, Outcome]:
    found = {}
    for path in visible_files(folder):
        try:
            signal, _rate, _start, report = read_recording(path, **without_label(options))
        except DataError as error:
            found[path.name] = Outcome(str(error))
        else:
            found[path.name] = Outcome("", report.as_json(), signal)
    return found


def by_probe(folder: Path, options: dict[str, Any], *_: Path) -> dict[str, Outcome]:
    source = open_dataset("tables", folder, classes="1=walk", **options)
    found = {Path(entry.what).name: Outcome(entry.reason) for entry in source.passed_over()}
    for file in source.files():
        path, report = Path(file.path), FileReport(file.path)
        try:
            pieces = source.read(file, report)  # pyright: ignore[reportCallIssue]
        except UnusableError as error:
            found[path.name] = Outcome(str(error))
        else:
            found[path.name] = Outcome("", report.as_json(), np.concatenate([each.signal_NxC for each in pieces]))
    return found


def by_records(folder: Path, options: dict[str, Any], model: Path, head: Path, out: Path) -> dict[str, Outcome]:
    call = ["records", "build", str(folder), "--source", "recordings", "--out", str(out), "--window_seconds", "20"]
    told = io.StringIO()
    with redirect_stderr(told):
        assert main([*call, "--validation", "0", "--test", "0", "--workers", "1", *words(options)]) == 0, (
            told.getvalue()
        )
    records = open_records(out)
    index, source = records.index("train"), records.source("train")
    outputs: dict[str, list[np.ndarray]] = {}
    for place, subject in enumerate(index.subject):
        outputs.setdefault(subject, []).append(source[place]["spectrogram"].astype(np.float32))
    skipped = [json.loads(line) for line in records.skipped_file.read_text().splitlines()]
    reasons = {Path(entry["file"]).name: entry["reason"] for entry in skipped}
    for file, reason in re.findall(r"selfpab-jax: skipped: (.*?): (.*)", told.getvalue()):
        reasons[Path(file).name] = reason
    joined = {subject: np.concatenate(windows) for subject, windows in outputs.items()}
    return outcomes(reasons, records.folder / "quality", joined)


def by_embed(folder: Path, options: dict[str, Any], model: Path, head: Path, out: Path) -> dict[str, Outcome]:
    file = out.with_suffix(".parquet")
    assert main(["embed", str(folder), "--model", str(model), "--out", str(file), *words(without_label(options))]) == 0
    frame, _ = read_features(file)
    columns = [name for name in frame if name.startswith("f0")]
    outputs = {stem_of(Path(str(name))): rows[columns].to_numpy() for name, rows in frame.groupby("file")}
    skipped = map(json.loads, skipped_path(file).read_text().splitlines()) if skipped_path(file).exists() else ()
    reasons = {Path(entry["what"]).name: entry["reason"] for entry in skipped}
    return outcomes(reasons, quality_path(file), outputs)


def by_predict(folder: Path, options: dict[str, Any], model: Path, head: Path, out: Path) -> dict[str, Outcome]:
    call = ["predict", str(folder), "--model", str(model), "--head", str(head), "--out", str(out)]
    assert main([*call, "--pictures", "false", *words(without_label(options))]) == 0
    seconds = {path.parent.name: pd.read_parquet(path) for path in out.glob("*/seconds.parquet")}
    skipped = json.loads((out / "summary.json").read_text())["skipped"]
    reasons = {Path(entry["what"]).name: entry["reason"] for entry in skipped}
    return outcomes(reasons, out / "quality", {name: rows["probability"].to_numpy() for name, rows in seconds.items()})


DOORS: dict[str, tuple[Door, float]] = {
    "read_recording": (by_python, 0.02),
    "probe": (by_probe, 0.02),
    "records build": (by_records, 0.3),
    "embed": (by_embed, 0.2),
    "predict": (by_predict, 0.1),
}
"""Each with the largest difference of an output from that of the clean file."""


@pytest.fixture(scope="module")
def through(
    tmp_path_factory: pytest.TempPathFactory, model: Path, head: SavedHead
) -> Callable[[str, str], dict[str, Outcome]]:
    """What a door made of a group, by name of the file; each group goes once through each door."""
    base = tmp_path_factory.mktemp("doors")
    write_head(base / "head", head)

    @cache
    def get(door: str, group: str) -> dict[str, Outcome]:
        options, files = GROUPS[group]
        folder = base / group
        if not folder.exists():
            for name, content in [*((name, each.content) for name, each in files.items()), *((n, "x") for n in HIDDEN)]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if callable(content):
                    content(folder / name)
                else:
                    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        out = base / f"{door} {group}"
        return DOORS[door][0](folder, {"label_column": "label"} | options, model, base / "head", out)

    return get


@pytest.mark.parametrize(("group", "name"), CASES)
@pytest.mark.parametrize("door", DOORS)
def test_a_file(door: str, group: str, name: str, through: Callable[[str, str], dict[str, Outcome]]) -> None:
    expected, found = GROUPS[group][1][name], through(door, group)
    if expected.refused == "same content as" and door == "read_recording":
        pytest.skip("it takes one file")
    outcome = found[name]
    if expected.refused:
        assert expected.refused in outcome.reason
        return
    assert outcome.report["hours_used"] * 3600 == pytest.approx(expected.used_s, abs=0.1)
    assert outcome.report["cut_s"] == pytest.approx(expected.cut_s, abs=0.1)
    assert any(expected.note in note for note in ["", *outcome.report["notes"]])
    if not expected.differs:
        clean = found["plain.csv"].output
        rows = min(len(clean), len(outcome.output))
        assert abs(len(clean) - len(outcome.output)) <= 2
        assert np.abs(outcome.output[:rows] - clean[:rows])[: rows - 5].max() < DOORS[door][1]


@pytest.mark.parametrize("door", DOORS)
def test_hidden_files_do_not_count(door: str, through: Callable[[str, str], dict[str, Outcome]]) -> None:
    assert set(through(door, "no options")) == set(GROUPS["no options"][1])


@pytest.mark.parametrize("door", DOORS)
def test_one_column_for_two_channels_is_refused(
    door: str, model: Path, head: SavedHead, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "S1.csv").write_text(text())
    write_head(tmp_path / "head", head)
    columns = ",".join(f"{name}=back_x" for name in NAMES)
    try:
        DOORS[door][0](tmp_path / "in", {"columns": columns}, model, tmp_path / "head", tmp_path / "out")
    except ConfigError as error:
        message = str(error)
    except AssertionError as error:  # of the exit code
        message = capsys.readouterr().err + str(error)
    else:
        message = ""
    assert "repeated name" in message


@pytest.mark.parametrize("door", ["records build", "probe"])
def test_one_column_may_hold_labels_and_segments(door: str, tmp_path: Path) -> None:
    signal = LABELED.copy()
    signal[3000:, 6] = 2
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "plain.csv").write_text(text(signal))
    options = {"label_column": "label", "segment_column": "label"}
    found = DOORS[door][0](tmp_path / "in", options, tmp_path, tmp_path, tmp_path / "out")
    assert found["plain.csv"].report["hours_used"] * 3600 == pytest.approx(120, abs=0.1)
    if door == "records build":
        assert open_records(tmp_path / "out").index("train").segment.tolist() == [0, 0, 0, 1, 1, 1]
