"""Which files are recordings, and whose they are."""

import fnmatch
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from selfpab_jax.data.sources.base import Skipped, SourceFile
from selfpab_jax.data.sources.devices.read import READERS
from selfpab_jax.data.tables.columns import estimated_rows, is_table
from selfpab_jax.errors import ConfigError, DataError

SESSION = re.compile(
    r"^(?P<subject>.+?)[_\-. ]((ses(sion)?|day|visit|run|part|week|night|wave|time|[tv])[_\-. ]?\d+"
    r"|(19|20)\d{2}-?\d{2}-?\d{2}|pre|post|baseline|follow[_\-. ]?up|left|right)$",
    re.IGNORECASE,
)
"""Names such as sub-01_ses-1, P01_2021-03-01 or P01_pre: several files of one subject."""
COMPARED_BYTES = 2**20
"""Files of one size whose beginnings and ends are equal have the same content: cohorts are too large to read twice."""
SUBJECT_RULES = "file, folder, folder/file, or a pattern such as sub-{subject}_*"


@dataclass(frozen=True)
class FoundRecordings:
    """The recordings in folders.

    Attributes:
        files: by subject, then name.
        passed_over: other files, by ending, with their number; hidden files are not counted.
        duplicates: (file, file with the same content that is used instead).
    """

    files: tuple[SourceFile, ...]
    passed_over: dict[str, int]
    duplicates: tuple[tuple[str, str], ...]

    def skipped(self) -> list[Skipped]:
        """What is not used, and why."""
        entries = []
        if self.passed_over:
            kinds = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in self.passed_over.items())
            entries.append(Skipped(f"{sum(self.passed_over.values())} files", f"no recordings: {kinds}"))
        return entries + [Skipped(file, f"the same content as {other}") for file, other in self.duplicates]


def stem_of(path: Path) -> str:
    """The file's name without its ending, `.gz` included."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder in order, without hidden ones (`._S01.csv`, `.ipynb_checkpoints/`).

    Links to folders are followed, but no folder is entered twice.
    """
    found, entered = [], {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen = sorted(name for name in folders if not name.startswith("."))
        folders.clear()
        for name in seen:
            if (real := os.path.realpath(os.path.join(parent, name))) not in entered:
                entered.add(real)
                folders.append(name)
        found += [Path(parent) / name for name in names if not name.startswith((".", "~$"))]
    return sorted(found)


def find_recordings(paths: Iterable[str], subject: str = "file") -> FoundRecordings:
    """The tables and device files below folders.

    Hidden files and folders do not count, endings may be in any case. Of files with equal content the first counts.

    Args:
        paths: folders.
        subject: what names the subject: `file`, the file's name; `folder`, the name of the folder that it is in;
            `folder/file`, both; or a pattern of the file's name (or of `folder/name`) with `{subject}` and `*`.

    Raises:
        ConfigError: no such rule, or a pattern that a file does not match.
        DataError: a folder is missing, there is no table, or it is not clear whose a file is.
    """
    paths = tuple(paths)
    if not paths:
        raise DataError("no folder of recordings was given")
    tables: list[Path] = []
    passed_over: dict[str, int] = defaultdict(int)
    for root in paths:
        if not Path(root).is_dir():
            raise DataError(f"{root}: no such folder of recordings")
        for path in visible_files(Path(root)):
            if is_table(path) or path.suffix.lower() in READERS:
                tables.append(path)
            else:
                passed_over[path.suffix.lower()] += 1
    if not tables:
        raise DataError(f"{', '.join(paths)}: there is no *.csv, *.tsv, *.parquet, *.cwa, *.gt3x or *.bin")
    tables, duplicates = without_duplicates(list(dict.fromkeys(tables)))
    named = [(subject_of(path, subject), path) for path in tables]
    _check_names(named, subject)
    files = []
    for name, path in sorted(named, key=lambda each: (each[0], str(each[1]))):
        files.append(SourceFile(name, stem_of(path), str(path), estimated_rows(path)))
    return FoundRecordings(tuple(files), dict(passed_over), tuple(duplicates))


def subject_of(path: Path, rule: str) -> str:
    """The subject of a file.

    Args:
        path: of the file.
        rule: see `find_recordings`.

    Raises:
        ConfigError: no such rule, or a pattern that the file does not match.
    """
    if rule == "file":
        return stem_of(path)
    if rule == "folder":
        return path.parent.name
    if rule == "folder/file":
        return f"{path.parent.name}/{stem_of(path)}"
    if rule.count("{subject}") != 1:
        raise ConfigError(f"subject is {rule!r}; give {SUBJECT_RULES}")
    before, after = (fnmatch.translate(part) for part in rule.split("{subject}"))
    pattern = re.compile(_inner(before) + r"(?P<subject>[^/]+?)" + _inner(after) + "$")
    name = f"{path.parent.name}/{stem_of(path)}" if "/" in rule else stem_of(path)
    match = pattern.match(name)
    if match is None:
        raise ConfigError(f"subject {rule!r} does not match {name} ({path})")
    return match["subject"]


def _inner(translated: str) -> str:
    """A translated glob pattern without the marks of a whole match."""
    return re.sub(r"^\(\?s:|\)\\[Zz]$", "", translated)


def _check_names(named: list[tuple[str, Path]], rule: str) -> None:
    if rule != "file":
        return
    places: dict[str, list[Path]] = defaultdict(list)
    sessions: dict[str, list[str]] = defaultdict(list)
    for name, path in named:
        places[name.casefold()].append(path)
        if match := SESSION.match(name):
            sessions[match["subject"]].append(name)
    for several in places.values():
        if len(several) > 1:  # or one is S01 and the other s01
            raise DataError(
                f"{several[0]} and {several[1]} have one name: is {stem_of(several[0])} one subject? Set --subject to "
                f"{SUBJECT_RULES}"
            )
    for subject, names in sessions.items():
        if len(names) > 1:
            raise DataError(
                f"{names[0]} and {names[1]} seem to be of one subject, {subject}: set --subject, e.g. "
                f"--subject '{{subject}}{names[0][len(subject)]}*', or --subject folder/file to keep them apart"
            )


def without_duplicates(paths: list[Path]) -> tuple[list[Path], list[tuple[str, str]]]:
    """Files without those that have the content of an earlier one, and pairs of such a file and the earlier one.

    Args:
        paths: of the files.
    """
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    first: dict[tuple[int, str], Path] = {}
    kept, duplicates = [], []
    for path in paths:
        size = path.stat().st_size
        if len(by_size[size]) > 1 and size:
            with open(path, "rb") as file:
                ends = file.read(COMPARED_BYTES)
                file.seek(max(0, size - COMPARED_BYTES))
                digest = hashlib.sha256(ends + file.read(COMPARED_BYTES)).hexdigest()
            if (other := first.setdefault((size, digest), path)) != path:
                duplicates.append((str(path), str(other)))
                continue
        kept.append(path)
    return kept, duplicates
