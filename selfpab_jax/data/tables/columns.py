"""Columns of CSV and Parquet files: read in blocks of rows or whole, and decoded to arrays."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Float32, Float64, Int, Int32

from selfpab_jax.data.sources.base import UnusableError
from selfpab_jax.data.sources.blocks import BLOCK_ROWS
from selfpab_jax.data.sources.report import READ_AS, FileReport
from selfpab_jax.data.tables.text import BYTES_PER_ROW, Layout, Malformed, find_layout, is_text_table, read_delimited
from selfpab_jax.data.tables.timestamps import TimeFormat, TimeReader, TimestampUnit, text_numbers

pc = cast(Any, pyarrow.compute)  # its functions are generated, and unknown to type checkers

MOST_WRONG = 0.5
"""More values of a block that are not numbers, and the column is not one of numbers."""
COMPRESSION = 4
"""By how much gzip makes a table of numbers smaller, for estimates."""


def is_table(path: Path) -> bool:
    """Whether the file's name is that of a table: .csv, .tsv (with or without .gz) or .parquet, in any case."""
    return is_text_table(path) or path.suffix.lower() == ".parquet"


def read_blocks(
    path: Path,
    columns: Iterable[str],
    rows: int = BLOCK_ROWS,
    text_columns: Iterable[str] = (),
    number_columns: Iterable[str] = (),
    report: FileReport | None = None,
) -> Iterator[pa.Table]:
    """Columns of a table in blocks of about `rows` rows, so that memory does not depend on the table's length.

    Args:
        path: text table or Parquet file.
        columns: names of the columns, or their numbers where a text table has no header; one may be named twice.
        rows: at most this many rows per block (text: this many rows of `BYTES_PER_ROW`).
        text_columns: columns that are read as text from a text table, whatever they hold.
        number_columns: columns in which anything but a number counts as missing.
        report: gets what is unusual about a text table, and what of it could not be read.

    Raises:
        UnusableError: unreadable, or a column is missing.
    """
    names = list(dict.fromkeys(columns))
    report = report or FileReport(str(path))
    try:
        if path.suffix.lower() == ".parquet":
            kind, blocks = "Parquet", _parquet_blocks(path, names, rows)
        else:
            kind, blocks = "CSV", _csv_blocks(path, names, rows, set(text_columns), set(number_columns), report)
        yield from (block for block in blocks if block.num_rows)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UnusableError(f"unreadable {kind}: {str(error).splitlines()[0]}") from None


def read_table(path: Path, columns: Iterable[str], text_columns: Iterable[str] = ()) -> pa.Table:
    """Columns of a whole table; a column of a text table that mixes numbers and text becomes text.

    Args:
        path: text table or Parquet file.
        columns: names of the columns.
        text_columns: as in `read_blocks`.

    Raises:
        UnusableError: unreadable, or a column is missing.
    """
    names = list(dict.fromkeys(columns))
    blocks = list(read_blocks(path, names, text_columns=text_columns))
    if not blocks:
        return pa.table({column: pa.nulls(0) for column in names})
    for name in names:
        if len({block.schema.field(name).type for block in blocks}) > 1:
            return read_table(path, names, {*text_columns, name})
    return pa.concat_tables(blocks)


def estimated_rows(path: Path) -> int:
    """Rows by Parquet's footer or a text's size; 0 where neither can be read (the reader gives the reason)."""
    try:
        if path.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_metadata(path).num_rows
        if not is_table(path):  # a device file: about six bytes a sample
            return path.stat().st_size // 6
        return path.stat().st_size * (COMPRESSION if path.suffix.lower() == ".gz" else 1) // BYTES_PER_ROW
    except (OSError, pa.ArrowException):
        return 0


def has_column(path: Path, column: str) -> bool:
    """Whether a table has a column; a table that cannot be read has none.

    Args:
        path: of the table.
        column: its name, or its number where a text table has no header.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return column in pyarrow.parquet.read_schema(path).names
        find_layout(path, [column])
    except (OSError, pa.ArrowException, UnusableError):
        return False
    return True


def _csv_blocks(
    path: Path, columns: list[str], rows: int, text: set[str], numeric: set[str], report: FileReport
) -> Iterator[pa.Table]:
    layout = find_layout(path, columns)
    if about := layout.describe():
        report.notes.append(f"{READ_AS}{about}")
    found: dict[str, pa.DataType | None] = {name: pa.string() if name in text else None for name in columns}
    done, marks = 0, set[str]()
    while True:
        malformed, place = Malformed(), 0
        try:
            if any(kind is None for kind in found.values()):
                schema = next(read_delimited(path, layout, found, rows, Malformed()), pa.table({})).schema
                found = {name: kind or _type_of_all_blocks(schema, name, numeric) for name, kind in found.items()}
            for block in read_delimited(path, layout, found, rows, malformed):
                place += block.num_rows
                if place > done:
                    fresh = block.slice(max(0, block.num_rows - (place - done)))
                    values = _without_headers(fresh, malformed)
                    mixed = _has_other_marks(values, numeric, layout.decimal, marks)
                    done = place
                    yield _with_numbers(values, numeric, layout, malformed, has_thousands=not mixed)
        except _OtherDecimalMarkError:
            layout = replace(layout, decimal=_other_mark(layout.decimal))  # read again; so far numbers were whole
            report.notes.append(f"{READ_AS}decimal {'commas' if layout.decimal == ',' else 'points'}")
            continue
        except pa.ArrowInvalid as error:
            if "invalid UTF8" in str(error) and layout.encoding.startswith("utf-8"):
                layout = replace(layout, encoding="latin-1")  # read again: every byte is a character there
                report.notes.append("not all of the text is UTF-8: read byte by byte, as Latin-1")
                continue
            failed = re.match(r"In CSV column #(\d+): (.*conversion error.*)", str(error))
            column = layout.names[int(failed[1])] if failed else None
            if column not in found or found[column] == pa.string():
                raise
            found = {**found, column: pa.string()}  # read again from the beginning, as text
            continue
        if malformed.rows:
            report.cut("malformed rows", malformed.rows / max(report.rate_hz, 1e-9), malformed.first)
            report.notes.append(f"{malformed.rows} malformed rows dropped (the first has {malformed.first})")
        if malformed.is_cut:
            report.note(
                "the compressed file is cut off or damaged: part is missing or wrong, by an amount that cannot be known"
            )
        if malformed.headers:
            report.notes.append(f"the header is repeated in {malformed.headers} rows")
        if malformed.values:
            report.notes.append(f"{malformed.values} values are not numbers (the first is {malformed.first_value!r})")
        return


def _type_of_all_blocks(schema: pa.Schema, name: str, numeric: set[str]) -> pa.DataType:
    """Of a column, given the first block's type: later blocks may have 0.5 after 1, or 10.02 s after 10 s."""
    if name not in schema.names:
        return pa.string()
    first = schema.field(name).type
    if name in numeric:
        return pa.string() if pa.types.is_string(first) else pa.float64()
    if pa.types.is_integer(first) or pa.types.is_null(first):
        return pa.float64()
    if pa.types.is_timestamp(first) or pa.types.is_date(first) or pa.types.is_time(first):
        return pa.string()
    return first


def _without_headers(block: pa.Table, malformed: Malformed) -> pa.Table:
    """The block without rows in which every column of text holds its own name: the header again."""
    names = [field.name for field in block.schema if pa.types.is_string(field.type)]
    if not names:
        return block
    is_header = pc.equal(pc.utf8_trim_whitespace(block.column(names[0])), names[0])
    for name in names[1:]:
        is_header = pc.and_(is_header, pc.equal(pc.utf8_trim_whitespace(block.column(name)), name))
    count = pc.sum(is_header).as_py() or 0
    malformed.headers += count
    return block.filter(pc.invert(is_header.fill_null(False))).combine_chunks() if count else block


class _OtherDecimalMarkError(Exception):
    """The file's beginning has whole numbers only, and what follows another decimal mark than was assumed."""


def _other_mark(decimal: str) -> str:
    return "," if decimal == "." else "."


def _has_other_marks(block: pa.Table, numeric: set[str], decimal: str, marks: set[str]) -> bool:
    """Whether numbers have another decimal mark: `0,512` or `1,5`, which no mark between thousands explains.

    Args:
        block: of the table.
        numeric: columns of numbers.
        decimal: mark that was found at the file's beginning, or assumed.
        marks: that were read so far, `thousands` among them; gets those of this block.

    Raises:
        _OtherDecimalMarkError: all of them have it.
        UnusableError: this cannot be known, because of numbers like `1,024` before.
    """
    mark, other = re.escape(decimal), re.escape(_other_mark(decimal))
    has_other = has_thousands = False
    for name in numeric & set(block.schema.names):
        values = block.column(name)
        if pa.types.is_floating(values.type):
            if decimal not in marks and pc.any(pc.not_equal(values, pc.floor(values))).as_py():
                marks.add(decimal)
        elif pa.types.is_string(values.type):
            plain = pc.utf8_trim_whitespace(values)
            if pc.any(pc.match_substring_regex(plain, rf"^[+-]?\d*{mark}\d+([eE][+-]?\d+)?$")).as_py():
                marks.add(decimal)
            found = pc.match_substring_regex(plain, rf"^[+-]?\d*{other}\d+([eE][+-]?\d+)?$")
            thousands = pc.match_substring_regex(plain, rf"^[+-]?[1-9]\d{{0,2}}{other}\d{{3}}$")
            has_thousands |= bool(pc.any(thousands).as_py())
            has_other |= bool(pc.any(pc.and_not(found, thousands)).as_py())
    if has_other and decimal not in marks:
        if "thousands" in marks:
            raise UnusableError(
                f"decimal mark: {_other_mark(decimal)!r} marks decimals in some rows, and could also stand between "
                "thousands in those before; write all numbers with a decimal point and no mark between thousands"
            )
        raise _OtherDecimalMarkError
    if has_thousands and not has_other:
        marks.add("thousands")
    return has_other


def _with_numbers(
    block: pa.Table, numeric: set[str], layout: Layout, malformed: Malformed, *, has_thousands: bool
) -> pa.Table:
    """The block with text in columns of numbers read as far as it is numbers."""
    for place, name in enumerate(block.schema.names):
        if name in numeric and pa.types.is_string(block.schema.field(place).type):
            values = block.column(name)
            array = text_numbers(values, layout.decimal, has_thousands=has_thousands)
            wrong_N = np.isnan(array) & pc.is_valid(values).to_numpy(zero_copy_only=False)
            if wrong_N.any():
                example = values[int(wrong_N.argmax())].as_py()
                if wrong_N.sum() > MOST_WRONG * len(wrong_N):
                    raise UnusableError(f"wrong type: column {name} holds text such as {example!r}, not numbers")
                others = {other for other in layout.names if other != name}
                if moved := others & {text.strip() for text in values.filter(pa.array(wrong_N)).to_pylist()}:
                    raise UnusableError(
                        f"the header is repeated with {', '.join(sorted(moved))} in the place of {name}: split the "
                        "file there, or write all of it with one order of columns"
                    )
                malformed.values += int(wrong_N.sum())
                malformed.first_value = malformed.first_value or example
            block = block.set_column(place, name, pa.array(array))
    return block


def _parquet_blocks(path: Path, columns: list[str], rows: int) -> Iterator[pa.Table]:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if missing := [column for column in columns if column not in names]:
            raise UnusableError(f"unknown column: {', '.join(missing)}; the table has {', '.join(names)}")
        if twice := [column for column in columns if names.count(column) > 1]:
            raise UnusableError(f"column {', '.join(twice)} appears twice in the table; rename one of them")
        # A few row groups at a time: a reader of the whole file would keep everything that it has decoded.
        for groups in _row_groups(file.metadata, rows):
            for batch in file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch])


def _row_groups(metadata: pyarrow.parquet.FileMetaData, rows: int) -> Iterator[list[int]]:
    """Row groups in order, at least one and as many together as have no more than this many rows."""
    together, count = [], 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if together and count + size > rows:
            yield together
            together, count = [], 0
        together, count = [*together, group], count + size
    if together:
        yield together


# From a column to an array.


def numbers(table: pa.Table, column: str) -> Float32[np.ndarray, " N"]:
    """A numeric column, missing values as NaN.

    Raises:
        UnusableError: it holds something else.
    """
    array = table.column(column)
    if pa.types.is_null(array.type):  # a column without a single value
        return np.full(len(array), np.nan, np.float32)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_decimal(array.type)):
        raise UnusableError(f"wrong type: column {column} holds {array.type}, not numbers")
    with np.errstate(over="ignore"):
        return array.cast(pa.float64(), safe=False).to_numpy().astype(np.float32)


def labels(table: pa.Table, column: str) -> Int32[np.ndarray, " N"]:
    """A column of whole numbers, missing values as -1.

    Raises:
        UnusableError: it holds something else.
    """
    values = table.column(column)
    if pa.types.is_string(values.type):
        array = text_numbers(values)
        if (wrong_N := np.isnan(array) & pc.is_valid(values).to_numpy(zero_copy_only=False)).any():
            example = values[int(wrong_N.argmax())].as_py()
            raise UnusableError(
                f"wrong type: label column {column} holds text such as {example!r}; records take whole numbers only, "
                "and need no labels: leave --label_column out (probe reads text)"
            )
    else:
        array = numbers(table, column)
    array = np.where(np.isnan(array), -1, array)
    if (array != np.round(array)).any():
        raise UnusableError(f"wrong type: label column {column} must hold whole numbers")
    return array.astype(np.int32)


def segment_codes(table: pa.Table, column: str) -> Int[np.ndarray, " N"]:
    """A number per row that changes where the value of the column does; the column may have any type."""
    return table.column(column).combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()


def seconds(table: pa.Table, column: str, unit: TimestampUnit) -> Float64[np.ndarray, " N"]:
    """Timestamps as seconds since 1970 on the recorder's clock (exact to the microsecond), without a missing one.

    Args:
        table: with the column.
        column: dates and times (text or a timestamp type), or numbers in `unit`.
        unit: of numbers.

    Raises:
        UnusableError: one is missing, or see `TimeReader.seconds`.
    """
    times_N = TimeReader(column, TimeFormat(unit)).seconds(table.column(column))
    missing_N = np.isnan(times_N)
    if missing_N.any():
        raise UnusableError(
            f"timestamps: {int(missing_N.sum())} of {len(times_N)} are missing in column {column}, first in "
            f"row {int(missing_N.argmax())} (--timestamp_unit {unit})"
        )
    return times_N
