"""How long work tells how far it is: a function that is called with (done, in all)."""

from collections.abc import Callable

Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """For callers that do not ask."""
