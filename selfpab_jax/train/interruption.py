"""SIGTERM and Ctrl-C as a wish to stop, granted after the step at hand."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interruption:
    """The wish, once there is one."""

    signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def listen() -> Iterator[Interruption]:
    """Turn SIGTERM and SIGINT into an `Interruption`; a second signal ends the program at once."""
    wish = Interruption()

    def note(number: int, _frame: object) -> None:
        if wish:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        wish.signal_number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
