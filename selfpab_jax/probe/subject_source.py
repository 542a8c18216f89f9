"""A part of a data set's people."""

from collections.abc import Iterator
from dataclasses import dataclass

from selfpab_jax.data.labelled.dataset import DatasetCard, LabelledSource
from selfpab_jax.data.recording import Recording
from selfpab_jax.data.source import SourceFile
from selfpab_jax.errors import DataError


@dataclass(frozen=True)
class SubjectSource:
    """The files of some subjects of a data set.

    Attributes:
        dataset: whose.
        subjects: theirs.
    """

    dataset: LabelledSource
    subjects: frozenset[str]

    @property
    def card(self) -> DatasetCard:
        """The data set's."""
        return self.dataset.card

    @property
    def name(self) -> str:
        """The data set's."""
        return self.dataset.name

    @property
    def channels(self) -> tuple[str, ...]:
        """The data set's."""
        return self.dataset.channels

    def files(self) -> Iterator[SourceFile]:
        """Those of the chosen subjects."""
        return (file for file in self.dataset.files() if file.subject in self.subjects)

    def read(self, file: SourceFile) -> list[Recording]:
        """As the data set reads it."""
        return self.dataset.read(file)


def choose_people(dataset: LabelledSource, only: tuple[str, ...], without: tuple[str, ...]) -> LabelledSource:
    """The data set with these people only.

    Raises:
        DataError: a name that the data set does not have, or nobody left.
    """
    if not only and not without:
        return dataset
    there = {file.subject for file in dataset.files()}
    if unknown := sorted({*only, *without} - there):
        names = ", ".join(sorted(there)[:8])
        raise DataError(f"{dataset.name} has no subject {', '.join(unknown)}; there are {names}, ...")
    chosen = (set(only) or there) - set(without)
    if not chosen:
        raise DataError(f"{dataset.name}: no subject is left; change dataset.only or dataset.without")
    return SubjectSource(dataset, frozenset(chosen))
