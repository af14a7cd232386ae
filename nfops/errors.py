"""Every error that nfops raises on purpose.

An error says *where* it happened (a file, a recipe line, an option), *what* is wrong (expected and got) and
what to do about it (*hint*). The exit codes belong to the command line: `nfops.cli.errors` has the table.
"""

from collections.abc import Sequence
from typing import ClassVar


class NfopsError(Exception):
    """Base of all errors for the user: `where: what (hint)`, always one line."""

    kind: ClassVar[str] = "error"

    def __init__(self, where: object, what: str, hint: str = "") -> None:
        self.where = str(where)
        self.what = what
        self.hint = hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The one line for the terminal."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line} ({self.hint})" if self.hint else line


class UsageError(NfopsError):
    """Options that make no sense together, or an argument out of range."""

    kind = "usage"


class NotFoundError(UsageError):
    """A path that does not exist."""

    kind = "not-found"


class InputError(NfopsError):
    """An image or a table that cannot be used."""

    kind = "input"


class RecipeError(NfopsError):
    """A recipe with mistakes: all of them at once, one line each."""

    kind = "recipe"

    def __init__(self, where: object, what: str, hint: str = "", problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(where, what, hint)

    @property
    def message(self) -> str:
        """One line per mistake."""
        return "\n".join(self.problems) if self.problems else super().message


class ComponentError(NfopsError):
    """A backbone, an operator or a plugin that does not exist, cannot be imported or clashes with another."""

    kind = "component"


class BundleError(NfopsError):
    """A bundle or a latent table that is missing, damaged, or made by something else."""

    kind = "bundle"


class OutputError(NfopsError):
    """An output that exists already, or that cannot be written."""

    kind = "output"


class DeviceError(NfopsError):
    """A device that was asked for and is not there."""

    kind = "device"


class MemoryLimitError(NfopsError):
    """More memory needed than there is."""

    kind = "memory"


class ResultError(NfopsError):
    """A result that failed its check and was not published."""

    kind = "result"


class NothingMatchedError(NfopsError):
    """No input at all."""

    kind = "nothing-matched"


class StoppedError(NfopsError):
    """A training that was asked to stop, and did so in good order: it can be resumed."""

    kind = "stopped"
