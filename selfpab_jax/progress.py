"""Progress of long work."""

import time
from collections.abc import Callable

Tell = Callable[[str], None]
"""Takes a line for people."""


def hours_told(tell: Tell, what: str, every_seconds: float = 10.0) -> Callable[[float, float], None]:
    """Takes hours done and hours in all, and says now and then how far it is, how fast, and how long it will take."""
    began = last = time.monotonic()

    def say(done: float, total: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_seconds:
            last = now
            left = (now - began) * (total - done) / max(done, 1e-9)
            tell(f"{what}: {done:.1f} of {total:.1f} h, {done / (now - began):.2f} h/s, {left / 60:.1f} min left")

    return say


def now_and_then(tell: Tell, every_seconds: float = 10.0) -> Tell:
    """Passes a line on where the last one is long enough ago."""
    last = time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every_seconds:
            last = time.monotonic()
            tell(line)

    return say


def named(tell: Tell, whose: str) -> Tell:
    """Passes lines on with the name of what they are of."""
    return lambda line: tell(f"{whose}: {line}")
