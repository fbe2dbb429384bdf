"""Which formats there are, and which one some bytes are.

Built-in formats are a table of modules; others come as entry points in the group ``modelio.formats`` that name a
:class:`~modelio.format.Format`. A module is imported when first asked for, and importing it has no effect.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import modelio.formats as built_in  # now: later it would take the name of the function modelio.formats
from modelio.errors import AmbiguousFormat, ModelioError, UnknownFormat
from modelio.format import Format
from modelio.source import Source
from modelio.strangers import describe

__all__ = ["by_name", "by_suffix", "formats", "identify"]

GROUP = "modelio.formats"
"""The entry points' group that plug-ins use."""

BUILT_IN = (
    "checkpoint",
    "frozen_graph",
    "hdf5_json",
    "keras_h5",
    "keras_json",
    "keras_zip",
    "safetensors",
    "saved_model",
    "tfjs_layers",
)
"""Modules of :mod:`modelio.formats`."""


@cache
def formats() -> Mapping[str, Format]:
    """Every format by name, sorted. A plug-in that fails to load is a warning, and is left out."""
    found = {}
    for module in BUILT_IN:
        record: Format = importlib.import_module(f"{built_in.__name__}.{module}").FORMAT
        found[record.name] = record
    for entry in _plug_ins():
        name = entry.name
        try:
            record = entry.load()
            if not isinstance(record, Format):
                raise TypeError(f"it names a {type(record).__name__}, not a modelio.Format")
        except Exception as error:  # a stranger's code: whatever it raises, the other formats must work
            warnings.warn(f"the format plug-in {name!r} cannot be loaded: {error}", stacklevel=2)
            continue
        if record.name in found:
            warnings.warn(f"the format plug-in {name!r} names a format that exists: {record.name}", stacklevel=2)
            continue
        found[record.name] = record
    return MappingProxyType(dict(sorted(found.items())))


def _plug_ins() -> list[importlib.metadata.EntryPoint]:
    """The entry points, in an order that does not depend on which package was installed first."""
    if not _some_plug_in():
        return []
    import importlib.metadata

    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))


def _some_plug_in() -> bool:
    """Does any installed package name the group?

    Looked up in the files themselves: importlib.metadata parses the metadata of every package, which takes longer than
    inspecting a model does.
    """
    for folder in sys.path:
        if os.path.isfile(folder):
            return True  # a zip on the path: only importlib.metadata looks inside
        for path in glob.glob(os.path.join(glob.escape(folder or os.curdir), "*-info", "entry_points.txt")):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if GROUP.encode() in file.read():
                    return True
    return False


def by_name(name: str) -> Format:
    """The format called ``name``; :class:`~modelio.errors.UnknownFormat` lists those that exist."""
    try:
        return formats()[name]
    except KeyError:
        raise UnknownFormat(f"no format is called {name!r}; there are {', '.join(formats())}") from None


def by_suffix(path: str | os.PathLike[str]) -> Format:
    """The format that a target's suffix names: ``model.h5`` is ``keras-h5``. The longest suffix wins.

    Raises:
        UnknownFormat: no suffix, or one that no writer has.
        AmbiguousFormat: several writers have it.
    """
    target = os.fsdecode(path)
    writers = [f for f in formats().values() if f.write is not None]
    found = [f for f in writers if _suffix(target, f)]
    found = [f for f in found if len(_suffix(target, f)) == max(len(_suffix(target, other)) for other in found)]
    if not found:
        names = ", ".join(f.name for f in writers)
        raise UnknownFormat(f"the target's name says no format; say it with to= (--to): {names}", source=target)
    return _only(found, target)


def _suffix(path: str, record: Format) -> str:
    """The longest of a format's suffixes that the path ends in; none is ``""``."""
    name = os.path.basename(path).lower()
    return max((suffix for suffix in record.suffixes if name.endswith(suffix)), key=len, default="")


def identify(source: Source) -> Format:
    """The format whose content this is: every format is asked, none is tried.

    Raises:
        UnknownFormat: none claims it; where the bytes are something else that is known, the message says what.
        AmbiguousFormat: several claim it, and its name does not decide between them.
    """
    claims = [f for f in formats().values() if _claims(f, source)]
    if len(claims) > 1:
        claims = [f for f in claims if _suffix(source.name, f)] or claims
    if not claims:
        raise UnknownFormat(describe(source), source=source.name)
    return _only(claims, source.name)


def _claims(record: Format, source: Source) -> bool:
    """Whether a format claims the content. One that fails over it does not, and the others are asked all the same."""
    if record.sniff is None:
        return False
    try:
        return record.sniff(source)
    except (ModelioError, OSError):
        raise  # the content's fault: a zip cut short
    except Exception as error:
        warnings.warn(f"the format {record.name} failed to look at {source.name}: {error!r}", stacklevel=3)
        return False


def _only(found: list[Format], source: str) -> Format:
    if len(found) == 1:
        return found[0]
    names = ", ".join(f.name for f in found)
    raise AmbiguousFormat(f"this may be any of {names}; say which with format= (--from, --to)", source=source)
