"""Threads end, errors are passed on, order is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from selfpab_jax.prefetch import Prefetcher, prefetch_chain, run_ahead


def test_threads_end_and_pass_errors_on() -> None:
    closed = []

    def numbers(upto: int):
        try:
            for number in range(upto):
                if number == 3:
                    raise OSError("no more")
                yield number
        finally:
            closed.append(upto)

    found = []
    with pytest.raises(OSError, match="no more"):
        found.extend(Prefetcher(numbers(5)))
    reader = iter(Prefetcher(numbers(100)))
    assert next(reader) == 0
    reader.close()
    assert closed == [5, 100]
    sources = [lambda start=start: iter(range(start, start + 3)) for start in range(0, 30, 3)]
    assert list(prefetch_chain(sources, workers=4, ahead=1)) == list(range(30))


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_results_are_fetched_after_the_next_were_dispatched(ahead: int) -> None:
    dispatched = []

    @jax.jit
    def double(x: jax.Array) -> jax.Array:
        return 2 * x

    def results():
        for number in range(5):
            dispatched.append(number)
            yield f"item {number}", double(jnp.full(3, number))

    for number, (name, doubled) in enumerate(run_ahead(results(), ahead)):
        assert name == f"item {number}"
        assert isinstance(doubled, np.ndarray)
        np.testing.assert_array_equal(doubled, [2 * number] * 3)
        assert len(dispatched) == min(5, number + 1 + ahead)
