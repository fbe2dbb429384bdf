"""Every error that modelio raises on purpose, named by what the caller can do about it.

::

    ModelioError                 .reason .source .format .where
     |- FormatError              which format is this?  say it with format=
     |   |- UnknownFormat            no format knows these bytes
     |   '- AmbiguousFormat          several do
     |- ReadError (ValueError)   the bytes are not what the format promises
     |   '- UnsafeInput              they are, and that is the problem
     |- WriteError (ValueError)  this model does not fit that format, or the target is taken
     |- ConversionError          there is no road; .unsupported lists every layer or op
     |   '- LossyConversion          there is a road, but strict=True
     '- MissingDependency (ImportError)   names the extra to install

A missing file stays :class:`FileNotFoundError`, a wrong argument :class:`TypeError`.

Whoever finds the fault says the *reason* and the place inside the file (*where*); which file and which format it was
is added once, by :mod:`modelio.api`.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AmbiguousFormat",
    "ConversionError",
    "FormatError",
    "LossyConversion",
    "MissingDependency",
    "ModelioError",
    "ReadError",
    "UnknownFormat",
    "UnsafeInput",
    "WriteError",
]


class ModelioError(Exception):
    """Base of all errors of modelio.

    Args:
        reason: one dry sentence: what is wrong, and, after it, what to do.
        where: the place inside the file: a group, a member, a node, a layer path.
        source: the file's name as the caller gave it; filled in by :mod:`modelio.api`.
        format: the format's name; filled in by :mod:`modelio.api`.

    >>> print(ReadError("the file ends here", where="dense_1/kernel", source="a.h5", format="keras-h5"))
    a.h5 (keras-h5), at dense_1/kernel: the file ends here
    """

    def __init__(
        self, reason: str, *, where: str | None = None, source: str | None = None, format: str | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.where = where
        self.source = source
        self.format = format

    def __str__(self) -> str:
        place = self.source or ""
        if self.source and self.format:
            place += f" ({self.format})"
        if self.where:
            place += f", at {self.where}" if place else f"at {self.where}"
        return f"{place}: {self.reason}" if place else self.reason

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by their positional arguments; the keywords travel as state.
        return (type(self), (self.reason,), self.__dict__)


class FormatError(ModelioError):
    """It is not clear which format is meant."""


class UnknownFormat(FormatError):
    """No format recognises the content, or no format has that name."""


class AmbiguousFormat(FormatError):
    """Several formats recognise the content; ``format=`` decides."""


class ReadError(ModelioError, ValueError):
    """The bytes are not what the format promises: truncated, damaged, inconsistent."""


class UnsafeInput(ReadError):
    """The bytes are well formed and ask for something that a file must not do: leave its directory, take all memory,
    run code.
    """


class WriteError(ModelioError, ValueError):
    """This model does not fit that format, or the target cannot be written."""


class ConversionError(ModelioError):
    """No road leads from this model to that format.

    ``unsupported`` lists every layer or op in the way, each with its path, not only the first.
    """

    def __init__(
        self,
        reason: str,
        *,
        unsupported: Sequence[str] = (),
        where: str | None = None,
        source: str | None = None,
        format: str | None = None,
    ) -> None:
        super().__init__(reason, where=where, source=source, format=format)
        self.unsupported = tuple(unsupported)


class LossyConversion(ConversionError):
    """The conversion would lose something that this model has, and ``strict=True`` forbids it."""


class MissingDependency(ModelioError, ImportError):
    """A package that this format or step needs is not installed; the message names the extra."""
