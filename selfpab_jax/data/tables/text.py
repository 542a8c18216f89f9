"""Text tables as programs write them: encoding, delimiter, decimal mark, preamble and header are found by looking.

What was found is a `Layout`; `read_delimited` reads the columns with it in blocks of rows.
"""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from selfpab_jax.data.sources.base import UnusableError

READ_BYTES = 2**20
SNIFFED_BYTES = 2**16
DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", "^": "carets", "~": "tildes", ",": "commas", " ": "spaces"}
"""In the order in which they are tried: a comma may be a decimal mark, and a space part of a timestamp."""
HEADER_LINES = 200
"""The header is looked for in this many lines."""
BYTES_PER_ROW = 70
MALFORMED_FRACTION = 0.01
"""More rows than this with another number of columns, and the file is not used."""
NUMBER = re.compile(r'\s*"?\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*"?\s*')
DECIMAL_COMMA = re.compile(r'\s*"?\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*"?\s*')
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
MISSING = ("", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None", "-", "#N/A", "<NA>", "nan(ind)")


@dataclass(frozen=True)
class Layout:
    """How a text table is written.

    Attributes:
        encoding: of the text.
        delimiter: between the columns.
        decimal: `.` or `,`.
        names: of the columns; without a header row `1`, `2`, ...
        skipped_rows: lines before the first row of values.
        has_header: whether there is a row of names.
        preamble: the lines before the header.
    """

    encoding: str
    delimiter: str
    decimal: str
    names: tuple[str, ...]
    skipped_rows: int
    has_header: bool
    preamble: tuple[str, ...] = ()

    def describe(self) -> str:
        """What differs from a plain CSV file, for a report; empty if nothing does."""
        parts = []
        if self.encoding not in ("utf-8", "utf-8-sig"):
            parts.append(self.encoding)
        if self.delimiter != ",":
            parts.append(DELIMITERS.get(self.delimiter, repr(self.delimiter)))
        if self.decimal == ",":
            parts.append("decimal commas")
        if self.preamble:
            parts.append(f"{len(self.preamble)} lines before the header")
        if not self.has_header:
            parts.append("no header")
        return ", ".join(parts)


@dataclass
class Malformed:
    """Rows that have another number of columns than the others, and values that are not numbers.

    Attributes:
        rows: dropped so far.
        values: of numeric columns, read as missing.
        first: what the first such row has.
        first_value: the first such value.
        is_cut: the compressed file ends too early, or is damaged from some byte on.
        headers: rows that are the header again.
    """

    rows: int = 0
    values: int = 0
    first: str = ""
    first_value: str = ""
    is_cut: bool = False
    headers: int = 0


def is_text_table(path: Path) -> bool:
    """Whether the file's name is that of a text table: .csv or .tsv, with or without .gz, in any case."""
    return bool(re.search(r"\.(csv|tsv)(\.gz)?$", path.name, re.IGNORECASE))


def open_bytes(path: Path) -> io.IOBase:
    """The bytes of a file, decompressed if they are gzip's, whatever its name says."""
    file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return _Gzip(gzip.open(path, "rb"))
    file.seek(0)
    return file


class _Gzip(io.RawIOBase):
    """Decompressed bytes up to where the file is damaged, or cut as by a copy that broke off: `is_cut`."""

    def __init__(self, file: gzip.GzipFile):
        super().__init__()
        self.file, self.is_cut = file, False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, left = [], size if size >= 0 else sys.maxsize
        try:
            while left and (data := self.file.read1(min(left, READ_BYTES))):
                parts.append(data)
                left -= len(data)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self.is_cut = True
        return b"".join(parts)

    def close(self) -> None:
        self.file.close()
        super().close()


def first_lines(path: Path, count: int) -> list[str]:
    """The first lines of a text table; none where it cannot be read."""
    try:
        with open_bytes(path) as file:
            head = file.read(SNIFFED_BYTES)
    except OSError:
        return []
    return head.decode(_encoding(head), errors="replace").lstrip("\ufeff").splitlines()[:count]


def find_layout(path: Path, columns: list[str]) -> Layout:
    """Look at the beginning of a text table.

    Args:
        path: the file.
        columns: names that the header should have; where it has none, numbers from 1.

    Raises:
        UnusableError: it cannot be read, is not a table, or has a column twice.
    """
    try:
        with open_bytes(path) as file:
            head = file.read(SNIFFED_BYTES)
    except OSError as error:
        raise UnusableError(f"unreadable CSV: {error}") from None
    if not head.strip(b"\0\r\n \xef\xbb\xbf\xfe\xff"):
        raise UnusableError("unreadable CSV: it is empty" + (", or holds nothing but zero bytes" if head else ""))
    encoding = _encoding(head)
    text = head.decode(encoding, errors="replace" if encoding.startswith("utf") else "strict").lstrip("\ufeff")
    lines = text.splitlines()
    if len(head) == SNIFFED_BYTES and len(lines) > 1:
        lines = lines[:-1]  # it may be cut
    separator = re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE) if lines else None
    delimiter = separator.group(1) if separator else _delimiter(lines)
    rows = [_fields(line, delimiter) for line in lines]
    place = _header(rows, columns)
    if place is None:
        return _without_header(rows, columns, encoding, delimiter)
    names = [_name(name) for name in rows[place]]
    if twice := sorted({name for name in columns if names.count(name) > 1}):
        raise UnusableError(f"column {', '.join(twice)} appears twice in the header; rename one of them")
    body = rows[place + 1 : place + 50]
    preamble = tuple(line for line in lines[:place] if line.strip() and not (separator and line is lines[0]))
    names = tuple(_names_of_all_columns(names, body))
    return Layout(encoding, delimiter, _decimal(body, delimiter), names, place + 1, True, preamble)


def _names_of_all_columns(names: list[str], body: list[list[str]]) -> list[str]:
    """The header's names and an empty one for a column that it does not name.

    Rows may end in a delimiter, and R writes the rows' names first without a name for their column.
    """
    widths = [len(row) for row in body if any(value.strip() for value in row)]
    if not widths:
        return names
    width = max(set(widths), key=widths.count)
    full = [row for row in body if len(row) == width]
    if width == len(names) + 1:
        if not any(row[-1].strip() for row in full):
            return [*names, ""]
        counts = [row[0].strip().strip('"') for row in full]
        if counts[0].isdecimal() and counts == [str(int(counts[0]) + row) for row in range(len(counts))]:
            return ["", *names]
    if width == len(names) - 1 and not names[-1]:
        return names[:-1]
    return names


def _without_header(rows: list[list[str]], columns: list[str], encoding: str, delimiter: str) -> Layout:
    first = _first_of_body(rows)
    width = len(rows[first])
    names = tuple(str(number + 1) for number in range(width))
    if not set(columns) <= set(names):
        if _is_header(rows[first]):
            have = ", ".join(name.strip() for name in rows[first])
            missing = ", ".join(name for name in columns if name not in [field.strip() for field in rows[first]])
            raise UnusableError(f"unknown column: {missing}; the table has {have}")
        raise UnusableError(
            f"unknown column: {', '.join(columns)}: the table has no header row but {width} columns; give their "
            "numbers, e.g. --timestamp_column 1 --columns back_x=2,back_y=3,back_z=4"
        )
    skipped = first + _is_header(rows[first])
    return Layout(encoding, delimiter, _decimal(rows[skipped : skipped + 50], delimiter), names, skipped, False)


def _encoding(head: bytes) -> str:
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    # UTF-16 without a mark: every other byte of plain text is zero.
    for place, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if head[place:64:2].count(0) > 3 * max(1, head[1 - place : 64 : 2].count(0)) and 0 in head[:4]:
            return name
    for name in ("utf-8", "cp1252"):
        try:
            head[: head.rfind(b"\n") + 1 or None].decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def _fields(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    if '"' not in line:
        return line.split(delimiter)
    return re.split(rf'{re.escape(delimiter)}(?=(?:[^"]*"[^"]*")*[^"]*$)', line)


def _delimiter(lines: list[str]) -> str:
    """The first delimiter that cuts most of the last lines into equally many parts, more than one."""
    body = [line for line in lines if line.strip()][-100:]
    for delimiter in DELIMITERS:
        counts = [len(_fields(line, delimiter)) for line in body]
        usual = max(set(counts), key=counts.count, default=1)
        if usual > 1 and counts.count(usual) >= 0.7 * len(counts):
            return delimiter
    return ","


def _name(field: str) -> str:
    """Of a column, without quotes, spaces and marks that cannot be seen."""
    return field.strip(' \t\xa0\u200b\ufeff"').strip()


def _header(rows: list[list[str]], columns: list[str]) -> int | None:
    """The row that holds all the names, if any."""
    places = (place for place, row in enumerate(rows[:HEADER_LINES]) if set(columns) <= {_name(name) for name in row})
    return next(places, None)


def _first_of_body(rows: list[list[str]]) -> int:
    """The first row of the longest series of rows of one width that reaches the end."""
    counts = [len(row) for row in rows]
    width = max(set(counts[-100:]), key=counts[-100:].count, default=1)
    for place in range(len(rows)):
        if counts[place] == width and counts[place : place + 20].count(width) >= min(15, len(rows) - place):
            return place
    return 0


def _is_header(row: list[str]) -> bool:
    return not any(NUMBER.fullmatch(value) for value in row if value.strip())


def _decimal(body: list[list[str]], delimiter: str) -> str:
    if delimiter == ",":
        quoted = [value for row in body for value in row if '"' in value]
        return "," if sum(bool(DECIMAL_COMMA.fullmatch(value)) for value in quoted) > len(quoted) / 2 else "."
    values = [value for row in body for value in row]
    commas = sum(bool(DECIMAL_COMMA.fullmatch(value)) for value in values)
    points = sum(bool(re.fullmatch(r"\s*[+-]?\d*\.\d+\s*", value)) for value in values)
    return "," if commas > points else "."


def read_delimited(
    path: Path, layout: Layout, types: dict[str, pa.DataType | None], rows: int, malformed: Malformed
) -> Iterator[pa.Table]:
    """Columns of a text table in blocks.

    Args:
        path: the file.
        layout: how it is written.
        types: the columns to read, and their types; None where the first block decides.
        rows: about this many per block.
        malformed: counts rows with another number of columns; they are dropped.

    Raises:
        pa.ArrowInvalid: a value does not have the column's type.
        UnusableError: too many rows have another number of columns.
    """

    def on_malformed(row: Any) -> str:
        if (row.text or "").strip("\0 \t"):
            malformed.first = malformed.first or f"{row.actual_columns} columns in place of {row.expected_columns}"
            malformed.rows += 1
        return "skip"

    options = {
        "read_options": pyarrow.csv.ReadOptions(
            use_threads=False,
            column_names=list(_unique(layout.names)),
            skip_rows=layout.skipped_rows,
            block_size=min(rows * BYTES_PER_ROW, READ_BYTES),  # pyarrow reads up to 32 of them ahead
            encoding="utf8" if layout.encoding == "utf-8-sig" else layout.encoding,
        ),
        "parse_options": pyarrow.csv.ParseOptions(delimiter=layout.delimiter, invalid_row_handler=on_malformed),
        "convert_options": pyarrow.csv.ConvertOptions(
            include_columns=list(types),
            column_types={name: kind for name, kind in types.items() if kind is not None},
            decimal_point=layout.decimal,
            null_values=list(MISSING),
            strings_can_be_null=True,
        ),
    }
    count, held = 0, []
    with _plain_stream(path, layout) as stream, pyarrow.csv.open_csv(stream, **options) as reader:
        for batch in reader:
            count += batch.num_rows
            held.append(batch)
            if sum(each.num_rows for each in held) >= rows:
                yield pa.Table.from_batches(held).combine_chunks()
                held = []
        yield pa.Table.from_batches(held, reader.schema).combine_chunks()
        malformed.is_cut = getattr(stream, "is_cut", False)
    if malformed.rows > max(1, MALFORMED_FRACTION * count):
        raise UnusableError(
            f"{malformed.rows} of {count + malformed.rows} rows are malformed (the first has {malformed.first}, "
            f"delimiter {layout.delimiter!r})" + (": the compressed file is damaged" if malformed.is_cut else "")
        )


def _unique(names: tuple[str, ...]) -> Iterator[str]:
    """Names of columns that are not read may be there twice, or empty."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 and name else f"{name} ({seen[name]})"


def _plain_stream(path: Path, layout: Layout) -> io.IOBase:
    """The file as pyarrow reads it: without zero bytes, and with single spaces where several separate columns."""
    stream = open_bytes(path)
    if layout.encoding.startswith(("utf-16", "utf-32")):
        return stream
    return _Plain(stream, layout.delimiter == " ")


class _Plain(io.RawIOBase):
    """Bytes in which zeros, which a recorder leaves where it was stopped, are ends of lines.

    With `joins_spaces` every series of spaces is one space, and lines begin without any.
    """

    def __init__(self, stream: io.IOBase, joins_spaces: bool):
        super().__init__()
        self.stream, self.joins_spaces, self.last = stream, joins_spaces, b"\n"

    @property
    def is_cut(self) -> bool:
        return isinstance(self.stream, _Gzip) and self.stream.is_cut

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while data := self.stream.read(size):
            if b"\0" in data:
                data = re.sub(rb"\0+", b"\n", data)
            if self.joins_spaces:
                data = re.sub(rb"(?<=\n) +| +(?=\r?\n)", b"", re.sub(rb" +", b" ", self.last + data))[len(self.last) :]
            if data:
                self.last = data[-1:]
                return data
        return b""

    def close(self) -> None:
        self.stream.close()
        super().close()
