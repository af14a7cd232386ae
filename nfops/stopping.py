"""How a long run is asked to end: it says when it can be asked, and looks between its steps."""

from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """A request to end. While a run is `listening`, whoever catches signals only notes them here.

    The run looks at `signal` between two steps, brings what it has into order and raises StoppedError.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.is_heard = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The block looks at `signal` often; it needs no exception from elsewhere."""
        before, self.is_heard = self.is_heard, True
        try:
            yield
        finally:
            self.is_heard = before
