"""Timestamps as users and programs write them, as seconds on the recorder's own clock.

The clock is that of the wall where the recorder was: `10:00+02:00` is ten o'clock. Offsets and names of zones are not
applied but dropped, and named in the report. Where the offset changes within a file, as in summer, the first one holds
for all of it: a recorder's clock does not jump.
"""

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool, Float64, Int64

from selfpab_jax.data.sources.base import EPOCH, UnusableError

pc = cast(Any, pyarrow.compute)  # its functions are generated, and unknown to type checkers

TimestampUnit = Literal["text", "s", "ms", "us", "ns", "excel"]
TICKS_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
DAY = 86_400.0
MOST_WRONG = 0.01
"""Share of rows whose times may make no sense before the format is taken to be another one."""
MIDNIGHT_STEP = -3 * 3600.0
"""A larger step back in times of day is midnight, also behind a gap; a clock that is changed goes back an hour."""
EXCEL_EPOCH = -25_569
"""Days from 1970 to Excel's day 0, 1899-12-30."""
YEAR_1, YEAR_3000 = -62_135_596_800, 32_503_680_000
"""Seconds since 1970 that are plausible; milliseconds taken for seconds are far beyond."""
YEAR_1980 = 315_532_800
"""Seconds since 1970; clocks that show less count from their own start."""
CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,:](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?"
)
DATED = rf"^(?P<first>\d{{1,4}})[-/.](?P<middle>\d{{1,2}})[-/.](?P<last>\d{{1,4}})[T\s,]+{CLOCK}$"
UNDATED = rf"^{CLOCK}$"
COMPACT = r"^\d{8}[T ]?\d{6}([.,]\d+)?"
COMPACT_ALONE = r"^(19|20)\d{6}[T ]?\d{6}([.,]\d+)?$"
ZONED = r"(:\d{2}(?:[.,]\d+)?)\s*((?:UTC|GMT)?[+-]\d{2}(?::?\d{2})?|Z|[A-Z]{3,5})\s*(\[[^\]]*\]|\([^)]*\))?$"
OFFSET = r"(?:UTC|GMT)?(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?"
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NAMED_MONTH = rf"(?i)\b(?:{'|'.join(MONTHS)})[a-z]*\b"


@dataclass(frozen=True)
class TimeFormat:
    """How timestamps are to be read.

    Attributes:
        unit: `text` for dates and times; the unit of numbers since 1970; or `excel`, days as spreadsheets store them.
        day_first: whether 03/04/2020 is the third of April; None: it must be clear from the values.
        first_date: date of the first row, where timestamps are times of day only.
    """

    unit: TimestampUnit = "text"
    day_first: bool | None = None
    first_date: date | None = None


@dataclass
class TimeReader:
    """Reads consecutive blocks of one column; what was found in the first block holds for the others.

    Args:
        column: name, for messages.
        format: how to read it.
    """

    column: str
    format: TimeFormat = field(default_factory=TimeFormat)
    zone: str | None = None
    _day_first: bool | None = None
    _has_zone: bool | None = None
    _previous_s: float = -np.inf
    _days: int = 0
    _offset_s: float | None = None
    _other_offset: bool = False

    def seconds(self, values: pa.ChunkedArray) -> Float64[np.ndarray, " N"]:
        """Seconds since 1970 on the recorder's clock, exact to the microsecond; NaN where a value is not a time.

        Raises:
            UnusableError: no value is a time, day and month are ambiguous, zones are mixed, or numbers are not
                in the unit given.
        """
        kind = values.type
        if pa.types.is_null(kind) or values.null_count == len(values):
            raise UnusableError(f"timestamps: column {self.column} has none")
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return self._of_numbers(values.cast(pa.float64(), safe=False).to_numpy())
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return self._of_timestamps(values)
        if pa.types.is_time(kind):
            values = values.cast(pa.string())
        elif pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise UnusableError(f"timestamps: column {self.column} holds {kind}, which is not a date and time")
        return self._of_text(values.cast(pa.string()))

    def notes(self) -> list[str]:
        """What was found and decided, for a report."""
        notes = [f"time zone {self.zone} dropped: times are those of the recorder's clock"] if self.zone else []
        if self._other_offset:
            notes.append("the time zone's offset changes: all times are with the first one, so that the clock runs on")
        if self._day_first is not None:
            notes.append(f"dates read as {'day/month' if self._day_first else 'month/day'}")
        return notes

    def _of_numbers(self, numbers_N: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        if self.format.unit == "text":
            raise UnusableError(
                f"timestamps: column {self.column} holds numbers; set their unit with --timestamp_unit (s, ms, us, ns "
                "or excel)"
            )
        if self.format.unit == "excel":
            times_N = (numbers_N + EXCEL_EPOCH) * DAY
        else:
            times_N = numbers_N / TICKS_PER_SECOND[self.format.unit]
        wrong_N = np.isfinite(times_N) & ~((times_N >= YEAR_1) & (times_N < YEAR_3000))
        if wrong_N.sum() > MOST_WRONG * len(times_N):
            row = int(wrong_N.argmax())
            raise UnusableError(
                f"timestamps: row {row} of column {self.column} is not a time before the year 3000 ({times_N[row]:.6g} "
                f"s since 1970 with --timestamp_unit {self.format.unit})"
            )
        return np.where(np.isfinite(times_N) & ~wrong_N, times_N, np.nan)

    def _of_timestamps(self, values: pa.ChunkedArray) -> Float64[np.ndarray, " N"]:
        if getattr(values.type, "tz", None):
            self.zone = str(values.type.tz)
            utc_N = _microseconds(values)
            local_N = _microseconds(pc.local_timestamp(values))
            known_N = pc.is_valid(values).to_numpy(zero_copy_only=False)
            return np.where(known_N, local_N / 1e6 + self._shift((local_N - utc_N) / 1e6, known_N), np.nan)
        times_N = _microseconds(values) / 1e6
        return np.where(pc.is_null(values).to_numpy(zero_copy_only=False), np.nan, times_N)

    def _of_text(self, values: pa.ChunkedArray) -> Float64[np.ndarray, " N"]:
        plain = pc.utf8_trim_whitespace(values)
        is_number = r"^[+-]?[\d.,]+([eE][+-]?\d+)?$"
        numeric = pc.all(pc.match_substring_regex(plain, is_number)).as_py()
        if numeric and self.format.unit == "text":  # or dates without a separator, which are digits, too
            numeric = not pc.all(pc.match_substring_regex(plain, COMPACT_ALONE)).as_py()
        if numeric:
            commas = (
                pc.any(pc.match_substring(plain, ",")).as_py() and not pc.any(pc.match_substring(plain, ".")).as_py()
            )
            return self._of_numbers(text_numbers(plain, "," if commas else "."))
        plain, shift_N = self._without_zone(plain)
        example = _example(plain)
        if re.search(NAMED_MONTH, example):
            plain = _with_month_numbers(plain)
            example = _example(plain)
        return self._of_dates(plain, example) + shift_N

    def _of_dates(self, plain: pa.ChunkedArray, example: str) -> Float64[np.ndarray, " N"]:
        if re.match(COMPACT, example):
            plain = pc.replace_substring_regex(
                plain, r"^(\d{4})(\d{2})(\d{2})[T ]?(\d{2})(\d{2})(\d{2})", r"\1-\2-\3 \4:\5:\6"
            )
        try:  # the quick way, for ISO 8601 throughout
            return self._of_timestamps(plain.cast(pa.timestamp("ns")))
        except pa.ArrowInvalid:
            pass
        return self._of_parts(plain, example)

    def _shift(self, offset_N: Float64[np.ndarray, " N"], known_N: Bool[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Seconds from times on the wall to those with the file's first offset."""
        if self._offset_s is None and known_N.any():
            self._offset_s = float(offset_N[known_N][0])
        shift_N = np.where(known_N, (self._offset_s or 0.0) - offset_N, 0.0)
        self._other_offset |= bool((shift_N != 0).any())
        return shift_N

    def _without_zone(self, plain: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Float64[np.ndarray, " N"]]:
        """Times without their zone, and the seconds by which they move where its offset is not the first one."""
        shift_N = np.zeros(len(plain))
        has_zone_N = pc.match_substring_regex(plain, ZONED).fill_null(False).to_numpy(zero_copy_only=False)
        valid_N = pc.is_valid(plain).to_numpy(zero_copy_only=False)
        few = MOST_WRONG * len(plain)
        with_zone, without = bool(has_zone_N.sum() > few), bool((valid_N & ~has_zone_N).sum() > few)
        before, self._has_zone = self._has_zone, with_zone
        if (with_zone and without) or (before is not None and before != with_zone):
            raise UnusableError(
                f"timestamps: some of column {self.column} have a time zone and some have none; write all alike"
            )
        if not with_zone:
            return pc.if_else(has_zone_N, None, plain) if has_zone_N.any() else plain, shift_N
        match = re.search(ZONED, plain[int(has_zone_N.argmax())].as_py())
        if match and self.zone is None:
            self.zone = " ".join(part for part in match.groups()[1:] if part)
        zones = pc.replace_substring_regex(plain, rf"^.*?{ZONED}", r"\2").combine_chunks().dictionary_encode()
        offset_Z = np.array([_offset(text or "") for text in zones.dictionary.to_pylist()] + [np.nan])
        offset_N = offset_Z[zones.indices.fill_null(len(offset_Z) - 1).to_numpy(zero_copy_only=False)]
        shift_N = self._shift(offset_N, np.isfinite(offset_N) & has_zone_N)
        return pc.replace_substring_regex(plain, ZONED, r"\1"), shift_N

    def _of_parts(self, plain: pa.ChunkedArray, example: str) -> Float64[np.ndarray, " N"]:
        is_dated = bool(re.match(r"^\d{1,4}[-/.]\d", example))
        parts = pc.extract_regex(plain, DATED if is_dated else UNDATED).combine_chunks()
        missing_N = pc.is_null(parts).to_numpy(zero_copy_only=False)
        if missing_N.all():
            raise UnusableError(
                f"timestamps: column {self.column} holds text such as {example!r}, which is not a date and time"
            )

        def numbers(name: str) -> Int64[np.ndarray, " N"]:
            text = pc.struct_field(parts, name)
            text = pc.if_else(pc.equal(pc.utf8_length(text), 0), "0", text)
            return text.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)

        fraction = pc.struct_field(parts, "fraction")
        digits_N = pc.utf8_length(fraction).fill_null(0).to_numpy(zero_copy_only=False)
        clock_N = numbers("hour") * 3600.0 + numbers("minute") * 60 + numbers("second")
        half = pc.utf8_lower(pc.replace_substring(pc.struct_field(parts, "half"), ".", ""))
        is_12_N = pc.greater(pc.utf8_length(half), 0).fill_null(False).to_numpy(zero_copy_only=False)
        if is_12_N.any():
            is_afternoon_N = pc.equal(half, "pm").fill_null(False).to_numpy(zero_copy_only=False)
            clock_N += np.where(is_12_N, 43200.0 * is_afternoon_N - 43200.0 * (numbers("hour") == 12), 0)
        clock_N += numbers("fraction") / 10.0**digits_N
        if is_dated:
            days_N = self._dates(numbers("first"), numbers("middle"), numbers("last"), ~missing_N)
        else:
            days_N = self._days_since_start(clock_N, ~missing_N)
        wrong_N = (numbers("hour") > 24) | (numbers("minute") > 59) | (numbers("second") > 60)
        return np.where(missing_N | wrong_N, np.nan, days_N * DAY + clock_N)

    def _dates(
        self,
        first_N: Int64[np.ndarray, " N"],
        middle_N: Int64[np.ndarray, " N"],
        last_N: Int64[np.ndarray, " N"],
        valid_N: Bool[np.ndarray, " N"],
    ) -> Float64[np.ndarray, " N"]:
        """Days since 1970 of year-month-day, day/month/year or month/day/year."""
        if first_N[valid_N].max() > 31:
            year_N, month_N, day_N = first_N, middle_N, last_N
        else:
            self._check_year(first_N[valid_N], middle_N[valid_N], last_N[valid_N])
            day_first = self._is_day_first(first_N[valid_N], middle_N[valid_N])
            year_N = np.where(last_N < 100, last_N + 2000, last_N)
            day_N, month_N = (first_N, middle_N) if day_first else (middle_N, first_N)
        wrong_N = (month_N < 1) | (month_N > 12) | (day_N < 1) | (day_N > 31)
        if wrong_N[valid_N].sum() > MOST_WRONG * len(valid_N):
            raise UnusableError(f"timestamps: column {self.column} has dates without such a month; see --day_first")
        months_N = np.clip(year_N - 1970, -1970, 8000) * 12 + np.clip(month_N, 1, 12) - 1
        starts_N = months_N.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        ends_N = (months_N + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        return np.where(wrong_N | (starts_N + day_N > ends_N), np.nan, starts_N + day_N - 1)

    def _check_year(
        self, first_n: Int64[np.ndarray, " n"], middle_n: Int64[np.ndarray, " n"], last_n: Int64[np.ndarray, " n"]
    ) -> None:
        """Of years with two digits, which may be the first part or the last."""
        if self.format.day_first is not None or self._day_first is not None or (last_n > 31).any():
            return
        moves_first = (np.diff(first_n) != 0).any() and not (np.diff(last_n) != 0).any()  # a year would not pass
        if not moves_first and not (middle_n > 12).any():
            raise UnusableError(
                f"timestamps: column {self.column} has years of two digits ({first_n[0]:02}-{middle_n[0]:02}-"
                f"{last_n[0]:02}), which may come first or last; write YYYY-MM-DD, or set --day_first true "
                "(day/month/year) or false (month/day/year)"
            )

    def _is_day_first(self, first_n: Int64[np.ndarray, " n"], middle_n: Int64[np.ndarray, " n"]) -> bool:
        if self.format.day_first is not None:
            return self.format.day_first
        if self._day_first is None:
            day, month = bool((first_n > 12).any()), bool((middle_n > 12).any())
            # A day that passes while its neighbor stands still is counted by the part that changes more often.
            changes = (np.diff(first_n) != 0).sum() - (np.diff(middle_n) != 0).sum()
            if day == month and changes == 0 and (first_n != middle_n).any():
                raise UnusableError(
                    f"timestamps: day and month cannot be distinguished in column {self.column} "
                    f"({first_n[0]}/{middle_n[0]}); set --day_first true or false"
                )
            self._day_first = day if day != month else bool(changes > 0)
        return self._day_first

    def _days_since_start(
        self, clock_N: Float64[np.ndarray, " N"], valid_N: Bool[np.ndarray, " N"]
    ) -> Float64[np.ndarray, " N"]:
        if self.format.first_date is None:
            raise UnusableError(
                f"timestamps: column {self.column} has times of day without a date; give that of the first row with "
                "--first_date YYYY-MM-DD"
            )
        days_N = np.full(len(clock_N), float(self._days))
        if valid_N.any():
            clock_n = clock_N[valid_N]
            steps_n = np.diff(clock_n, prepend=self._previous_s if np.isfinite(self._previous_s) else clock_n[0])
            # At midnight; rows that are swapped there step forward by most of a day and back again.
            turns_n = (steps_n < MIDNIGHT_STEP).astype(int) - (steps_n > DAY + MIDNIGHT_STEP)
            days_N[valid_N] = self._days + np.cumsum(turns_n)
            self._days, self._previous_s = int(days_N[valid_N][-1]), float(clock_n[-1])
        return days_N + float((self.format.first_date - EPOCH.date()).days)


def _microseconds(values: pa.ChunkedArray) -> Int64[np.ndarray, " N"]:
    plain = values.cast(pa.timestamp("us", tz=values.type.tz), safe=False)
    return plain.cast(pa.int64()).fill_null(0).to_numpy()


def _offset(zone: str) -> float:
    """Seconds that a zone is ahead of UTC; NaN where it is a name."""
    if match := re.fullmatch(OFFSET, zone):
        seconds = int(match["hours"]) * 3600.0 + int(match["minutes"] or 0) * 60
        return -seconds if match["sign"] == "-" else seconds
    return 0.0 if zone in ("Z", "UTC", "GMT") else np.nan


def _example(plain: pa.ChunkedArray) -> str:
    """A value that has digits; from the middle, because a row of units or a repeated header may begin a block."""
    values = plain.drop_null()
    middle = len(values) // 2
    for value in [*values.slice(middle, 3), *values.slice(0, middle)[::-1][:1000]]:
        if re.search(r"\d", text := value.as_py()):
            return text
    return next((value.as_py() for value in values.slice(middle) if value.as_py()), "")


def _with_month_numbers(plain: pa.ChunkedArray) -> pa.ChunkedArray:
    """`01-Mar-2021 10:00`, `Mar 1, 2021 10:00` and `Mon Mar  1 10:00:00 2021` as `2021-03-01 10:00`."""
    plain = pc.replace_substring_regex(plain, r"^(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +", "")
    plain = pc.replace_substring_regex(plain, r"^([A-Za-z]+) +(\d{1,2}) +(\S*:\S*) +(\d{4})$", r"\1 \2 \4 \3")
    plain = pc.replace_substring_regex(plain, r"^([A-Za-z]+)[-. ]+(\d{1,2})[-, ]+(\d{4})", r"\2-\1-\3")
    for number, month in enumerate(MONTHS, start=1):
        named = rf"^(\d{{1,2}})[-/. ]+(?i:{month})[a-z]*[-/., ]+"
        plain = pc.replace_substring_regex(plain, rf"{named}(\d{{4}})\b", rf"\2-{number:02d}-\1")
        plain = pc.replace_substring_regex(plain, rf"{named}(\d{{2}})\b", rf"20\2-{number:02d}-\1")
    return plain


def text_numbers(
    values: pa.ChunkedArray, decimal: str = ".", *, has_thousands: bool = True
) -> Float64[np.ndarray, " N"]:
    """Numbers written as text; NaN where a value is none.

    Args:
        values: text.
        decimal: decimal mark.
        has_thousands: whether 1,234 is a number with a mark between thousands.
    """
    plain = pc.utf8_trim_whitespace(values)
    plain = pc.replace_substring(plain, "\u2212", "-")
    mark, other = (",", r"[.\s']") if decimal == "," else (".", r"[,\s']")
    if has_thousands:
        thousands = pc.match_substring_regex(plain, rf"^[+-]?[1-9]\d{{0,2}}({other}\d{{3}})+({re.escape(mark)}\d*)?$")
        plain = pc.if_else(thousands, pc.replace_substring_regex(plain, other, ""), plain)
    if decimal == ",":
        plain = pc.replace_substring(plain, ",", ".")
    is_number = pc.match_substring_regex(plain, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
    plain = pc.replace_substring_regex(pc.if_else(is_number, plain, None), r"^\+", "")
    return plain.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)


def to_datetime(time: float, unit: TimestampUnit) -> datetime | None:
    """Date and time of seconds since 1970; None for numbers that count from another start (before 1980)."""
    if unit not in ("text", "excel") and time < YEAR_1980:
        return None
    return EPOCH + np.timedelta64(round(time * 1e3), "ms").astype(object)
