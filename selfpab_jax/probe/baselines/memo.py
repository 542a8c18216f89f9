"""Results that every fold, seed and label budget of a corpus shares, kept as long as the corpus is."""

import functools
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from selfpab_jax.probe.corpus import Corpus

P = ParamSpec("P")
Result = TypeVar("Result")


def once_per_corpus(function: Callable[Concatenate[Corpus, P], Result]) -> Callable[Concatenate[Corpus, P], Result]:
    """The function, computing each answer once; further arguments must be hashable."""
    kept: dict[int, dict[Any, Any]] = {}

    @functools.wraps(function)
    def remembering(corpus: Corpus, *args: P.args, **kwargs: P.kwargs) -> Result:
        # By identity: a corpus is frozen, and its arrays cannot be hashed.
        if id(corpus) not in kept:
            kept[id(corpus)] = {}
            weakref.finalize(corpus, kept.pop, id(corpus), None)
        answers = kept[id(corpus)]
        question = (args, tuple(sorted(kwargs.items())))
        if question not in answers:
            answers[question] = function(corpus, *args, **kwargs)
        return answers[question]

    return remembering
