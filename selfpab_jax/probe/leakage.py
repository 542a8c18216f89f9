"""What the encoder has seen in pre-training of the people it is probed on."""

from collections.abc import Iterable, Mapping
from typing import Any


def seen_subjects(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """The subjects that the model card lists as trained on, by name, sorted.

    A user's own tables, in pre-training (`recordings`) or here (`tables`), may be of any people, and name them by file;
    the same names are taken for the same people, which errs on the safe side. Data sets of other names are other
    people.
    """
    if not _may_be_the_same(provenance, dataset):
        return ()
    return tuple(sorted(set(subjects) & {str(name) for name in provenance.get("subjects") or ()}))


def leakage_lines(provenance: Mapping[str, Any], dataset: str, subjects: Iterable[str]) -> tuple[str, ...]:
    """A line where the encoder was, or may have been, pre-trained on people that are probed; none where it was not."""
    subjects = tuple(subjects)
    if not provenance.get("subjects") and _may_be_the_same(provenance, dataset):
        return ("the model card does not list the people that the encoder was pre-trained on: they may be among these",)
    seen = seen_subjects(provenance, dataset, subjects)
    if not seen:
        return ()
    names = ", ".join(seen[:6]) + (f" and {len(seen) - 6} more" if len(seen) > 6 else "")
    return (
        f"leakage: the encoder was pre-trained on recordings of {len(seen)} of these {len(subjects)} people ({names}); "
        "scores on them say little about new people",
    )


def _may_be_the_same(provenance: Mapping[str, Any], dataset: str) -> bool:
    return dataset == "tables" or provenance.get("source") in (None, dataset, "recordings", "tables")
