"""The verbs: short functions over the registry, the routes and the inspector.

This is the one place that assigns blame: an error raised below leaves here with the file's name and its format.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from modelio import registry
from modelio.errors import ConversionError, ModelioError, ReadError, WriteError
from modelio.format import Format, Model
from modelio.model import GraphModel, LayerModel
from modelio.sink import Sink
from modelio.source import Source

if TYPE_CHECKING:
    from modelio.graph.surgery import SignatureChange
    from modelio.inspection.compare import Comparison
    from modelio.inspection.report import Report
    from modelio.routes import Conversion

__all__ = [
    "convert",
    "formats",
    "from_keras",
    "identify",
    "inspect",
    "read",
    "rule",
    "to_callable",
    "to_keras",
    "verify",
    "write",
]


def formats() -> Mapping[str, Format]:
    """Every format that is known here, by name."""
    return registry.formats()


def identify(source: object) -> str:
    """The name of the format that ``source`` is in, told from its content alone.

    Raises:
        UnknownFormat: none, with what it is instead where that is known.
        AmbiguousFormat: several.

    >>> identify(b'{"class_name": "Sequential", "config": []}')
    'keras-json'
    """
    opened = Source.of(source)
    with _blame(opened.name):
        return registry.identify(opened).name


def read(source: object, *, format: str | None = None, **options: Any) -> Model:
    """Read a model. Weights stay where they are until they are asked for.

    Args:
        source: a path, ``bytes``, a binary file object, a directory, a ``dict[str, bytes]`` or a zip.
        format: a name from :func:`formats`; left out, the content says it.
        **options: what this format's reader takes, e.g. ``tags="serve"`` for ``saved-model``.

    Returns:
        A :class:`~modelio.LayerModel` or a :class:`~modelio.GraphModel`.

    Raises:
        FormatError: no format, or several, recognise the content.
        ReadError: the content is damaged, or unsafe.
    """
    return _read(Source.of(source), format, options)[0]


class _Given(NamedTuple):
    """A model and, where it was read here, the file and the format that it came from."""

    model: Model
    name: str | None = None
    format: Format | None = None

    def blame(self) -> contextlib.AbstractContextManager[None]:
        return _blame(self.name, self.format.name if self.format else None)


def _given(source: Any, format: str | None = None, options: Mapping[str, Any] | None = None) -> _Given:
    """A model as it is, or read from whatever :func:`read` takes."""
    if isinstance(source, Model):
        return _Given(source)
    opened = Source.of(source)
    model, chosen = _read(opened, format, options or {})
    return _Given(model, opened.name, chosen)


def _graph(source: Any) -> GraphModel:
    """A model that must be a graph."""
    given = _given(source)
    if not isinstance(given.model, GraphModel):
        with given.blame():
            raise ConversionError("merge= takes graphs, and these are layers: convert them to a SavedModel first")
    return given.model


def _read(source: Source, name: str | None, options: Mapping[str, Any]) -> tuple[Model, Format]:
    with _blame(source.name):
        chosen = registry.by_name(name) if name is not None else registry.identify(source)
    with _blame(source.name, chosen.name):
        reader = _usable(chosen.read, chosen, "read", options)
        return reader(source, **options), chosen


def write(
    model: Model,
    target: Any = None,
    *,
    format: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Any:
    """Write a model in a format of its own level; :func:`convert` changes levels.

    Args:
        model: what :func:`read` gave.
        target: a path, a binary file object or a mutable mapping; None returns the bytes, a tree as a zip.
        format: a name from :func:`formats`; left out, the target's suffix says it.
        overwrite: replace what is at the target.
        **options: what this format's writer takes.

    Returns:
        The target, or the bytes.

    Raises:
        WriteError: the model does not fit the format, or the target exists.
    """
    return _write(model, target, _target_format(target, format), overwrite, options)


def _target_format(target: Any, name: str | None, origin: Format | None = None) -> Format:
    """By name, by the target's suffix, or, for a target without one, the directory format that the source had."""
    if name is not None:
        return registry.by_name(name)
    if isinstance(target, (str, os.PathLike)):
        if origin is not None and origin.shape == "tree" and not os.path.splitext(os.fspath(target))[1]:
            return origin
        return registry.by_suffix(target)
    raise TypeError("the format of a target that has no name must be said: format= (write) or to= (convert)")


def _write(model: Model, target: Any, chosen: Format, overwrite: bool, options: Mapping[str, Any]) -> Any:
    path = os.fspath(target) if isinstance(target, (str, os.PathLike)) else None
    with _blame(path, chosen.name, WriteError):
        writer = _usable(chosen.write, chosen, "write", options)
        if overwrite and path is not None:
            _check_replaceable(path)
        place, shape, settings = chosen.place(target, options) if chosen.place else (target, chosen.shape, options)
        with Sink.open(place, shape=shape, overwrite=overwrite) as sink:
            writer(model, sink, **settings)
            written = sink.commit()
        return written if target is None else target


def _check_replaceable(path: str) -> None:
    """Refuse to replace a directory that is no model: ``--overwrite`` with a slip in the path must not empty a home."""
    if os.path.isdir(path) and os.listdir(path):
        try:
            registry.identify(Source.of(path))
        except ModelioError as error:
            raise WriteError("the directory that would be replaced holds no model; delete it yourself first") from error


def convert(
    source: Any,
    target: Any = None,
    *,
    to: str | None = None,
    source_format: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    bind: Mapping[str, Any] | None = None,
    signature: str | None = None,
    engine: str | None = None,
    rules: Mapping[str, Callable[..., Any]] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    release: str | None = None,
    verify: bool = False,
    dialect: str | None = None,
    architecture: Any = None,
    tags: Iterable[str] | str | None = None,
    rename: Mapping[str, str] | None = None,
    signatures: Mapping[str, SignatureChange] | None = None,
    rename_keys: Mapping[str, str] | None = None,
    outputs: Sequence[str] | None = None,
    inline: bool = False,
    thaw: bool | int = False,
    merge: Sequence[Any] | None = None,
    retag: Iterable[str] | str | None = None,
    **options: Any,
) -> Conversion:
    """Read a model, take it to the level of the target's format, and write it.

    Args:
        source: a model, or whatever :func:`read` takes.
        target: whatever :func:`write` takes; None keeps the result in memory as ``Conversion.data``.
        to: the target's format; left out, the target's suffix says it; a directory without one keeps its format.
        source_format: the source's format; left out, its content says it.
        strict: raise :class:`~modelio.LossyConversion` where something that the model has would be lost.
        overwrite: replace what is at the target.
        bind: placeholders that become constants: node name, or the role ``"learning_phase"``, to value. What follows
            from them is computed, and branches that they decide go.
        signature: keep only this signature.
        engine: ``"tensorflow"`` has Keras, which must be installed, make the graph of the whole model.
        rules: what makes the graph of a layer, by its name, its path or its class, in this conversion alone: for a
            Lambda, say, whose code is never run here. For a class in every conversion: :func:`modelio.rule`.
        custom_objects: classes and functions by name, for the engine; none is looked up from a file.
        release: the TensorFlow that must be able to load the graph: ``"tf=1.2"``.
        verify: compare the result with the source (:func:`verify`) before it is written.
        dialect: ``"keras2"`` or ``"keras3"``, optionally with a version (``"keras3.5"``): rewrite the layers as that
            Keras has them. Left out, they stay as they are, unless the target's format cannot hold them.
        architecture: the architecture that a weights-only source, or a graph, belongs to: whatever :func:`read` takes.
        tags: the tags of the MetaGraph that is meant, where the source is a SavedModel of several.
        rename: nodes, or scopes (``"net/"``), that get other names: old to new.
        signatures: name to what becomes of it: ``{"inputs": {key: tensor}, "outputs": {key: tensor}}`` sets the
            signature, with dtypes and shapes from the graph, a text is its new name, None removes it.
        rename_keys: keys of inputs and outputs, in all signatures: old to new.
        outputs: all that the graph is to answer: nodes, tensors or keys of a signature's outputs. What they do not need
            goes.
        inline: write the functions of TensorFlow 2 out where they are called.
        thaw: large constants become variables, which lifts protobuf's limit of 2 GiB; a number is the bytes from which
            on a constant is large.
        merge: more models over the same variables, which become further MetaGraphs of the SavedModel.
        retag: the tags of the result.
        **options: what the target format's writer takes.

    Returns:
        The :class:`~modelio.routes.Conversion`: data, route, losses and changes.

    Raises:
        ConversionError: no road; ``.unsupported`` lists every layer or op in the way.
    """
    from modelio import routes

    if to is not None:
        registry.by_name(to)  # a slip in the name is told before anything is read
    given = _given(source, source_format, {} if tags is None else {"tags": tags})
    goal = _target_format(target, to, given.format)
    surgery = routes.Surgery(
        signature=signature,
        bind=bind,
        rename=rename,
        signatures=signatures,
        rename_keys=rename_keys,
        outputs=outputs,
        inline=inline,
        thaw=thaw,
        merge=[_graph(other) for other in merge] if merge else None,
        retag=retag,
    )
    lowering = routes.Lowering(rules, engine, custom_objects)
    with given.blame():
        walk = routes.walk(
            given.model,
            given.format,
            goal,
            surgery=surgery,
            strict=strict,
            lowering=lowering,
            dialect=dialect,
            release=release,
            architecture=None if architecture is None else _given(architecture).model,
        )
        if verify:
            _check_same(given.model, walk.model, routes.runner(lowering))
        data = _write(walk.model, target, goal, overwrite, options)  # weights are read only now
    return routes.Conversion(
        data=data if target is None else None,
        target=target,
        route=walk.route,
        losses=walk.losses,
        changes=walk.changes,
    )


def _check_same(source: Model, result: Model, run: Any) -> None:
    """Refuse a result that is not the same as its source."""
    from modelio.inspection.compare import compare

    comparison = compare(source, result, run=run)
    if not comparison.equal:
        raise ConversionError(f"the result is not the same as the source, and was not written:\n{comparison}")


def inspect(source: Any, *, format: str | None = None) -> Report:
    """What a model really needs and answers. No weight is read.

    Args:
        source: a model, or whatever :func:`read` takes.
        format: a name from :func:`formats`; left out, the content says it.

    Returns:
        The report: ``str()`` for people, ``.to_dict()`` for programs.
    """
    from modelio.inspection.report import report_of

    given = _given(source, format)
    with given.blame():
        if given.format is None:
            return report_of(given.model)
        return report_of(given.model, format=given.format.name, level=given.format.level)


def verify(
    first: Any,
    second: Any,
    *,
    inputs: Any = None,
    rtol: float = 1e-5,
    atol: float = 0.0,
) -> Comparison:
    """Whether two models are the same: weights bit for bit, what goes in and out, answers on the same inputs.

    The answers are TensorFlow's; where it is not installed, weights and ends are compared alone, and the result says
    so.

    Args:
        first: what the other is held against: a model, or whatever :func:`read` takes.
        second: likewise.
        inputs: arrays by input key, or an ``.npz`` of them; left out, random ones are made, the same on every run.
        rtol: difference that is allowed, relative to the largest magnitude in an output.
        atol: difference that is allowed beside that.

    Returns:
        The account: ``.equal``, ``str()`` for people, ``.to_dict()`` for programs.

    Raises:
        ConversionError: a model has layers that no rule runs, or no signature takes these inputs.
    """
    from modelio import routes
    from modelio.inspection.compare import compare

    ours, theirs = _given(first), _given(second)
    arrays = inputs if inputs is None or isinstance(inputs, Mapping) else _arrays(Source.of(inputs))
    with ours.blame():
        return compare(ours.model, theirs.model, run=routes.runner(), inputs=arrays, rtol=rtol, atol=atol)


def _arrays(source: Source) -> dict[str, Any]:
    """The arrays of an ``.npz`` by name."""
    from modelio.wire.npz import read_npy

    with _blame(source.name):
        if source.tree is None:
            raise ReadError("inputs are an .npz, which is a zip of .npy files, and this is no zip")
        return {
            name.removesuffix(".npy"): read_npy(member.window(), where=name).numpy()
            for name, member in source.tree.items()
        }


def rule(*class_names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: this function makes the graph of every layer of these classes, built-in ones included.

    The function takes the builder, the layer and the layer's input, and returns the output; see the page on layers of
    your own::

        @modelio.rule("Scale")
        def scale(g, layer, x):
            return g.Mul(x, layer.weight("scale"))

    Args:
        *class_names: as in the file, without the package: ``"Scale"`` for ``my_package>Scale``.
    """
    from modelio.lowering import rules

    return rules.rule(*class_names, own=True)


def to_callable(
    model: Any, signature: str = "serving_default", *, rules: Mapping[str, Callable[..., Any]] | None = None
) -> Callable[..., dict[str, Any]]:
    """A function that runs a model on TensorFlow, in this process and in memory.

    Args:
        model: a model, or whatever :func:`read` takes.
        signature: which one to run; a frozen graph has one, ``"graph"``, which is taken where this is left out.
        rules: what makes the graph of a layer, as in :func:`convert`.

    Returns:
        A function of arrays by input key (a single input by position too), which gives arrays by output key.

    Raises:
        MissingDependency: TensorFlow is not installed.
        ConversionError: no such signature, or layers that have no rule.
    """
    from modelio import routes

    given = _given(model)
    with given.blame():
        return routes.run(given.model, signature, routes.Lowering(rules))


def from_keras(keras_model: Any) -> LayerModel:
    """A live model of Keras 3 or tf_keras as a LayerModel, in memory: no file is made.

    Args:
        keras_model: a built ``keras.Model`` or ``tf_keras.Model``; its arrays are copied.

    Raises:
        ConversionError: it is neither, or cannot say its own architecture (a subclassed model).
    """
    from modelio import routes

    return routes.from_live(keras_model)


def to_keras(model: Any, *, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """A live model, in memory: built, with its weights, and compiled where it was trained.

    Args:
        model: a LayerModel, or whatever :func:`read` takes. Its dialect says who builds it: Keras 3, or tf_keras for
            Keras 2.
        custom_objects: the classes of custom layers and functions by name; none is looked up from a file.

    Raises:
        MissingDependency: the package that builds this dialect is not installed.
        ConversionError: Keras does not build this architecture.
    """
    from modelio import routes

    given = _given(model)
    with given.blame():
        return routes.to_live(given.model, custom_objects)


def _usable(
    function: Callable[..., Any] | None, chosen: Format, verb: str, options: Mapping[str, Any]
) -> Callable[..., Any]:
    """A format's reader or writer, after checking that it exists and takes these options."""
    if function is None:
        raise WriteError(f"this format cannot be {'written' if verb == 'write' else verb}")
    known = list(getattr(function, "__kwdefaults__", None) or ())
    unknown = sorted(set(options) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise TypeError(f"{chosen.name} has no option {', '.join(unknown)} to {verb}; {takes}")
    return function


@contextlib.contextmanager
def _blame(source: str | None, format: str | None = None, kind: type[ModelioError] = ModelioError) -> Iterator[None]:
    """Name the file and the format in every error of a kind that passes."""
    try:
        yield
    except kind as error:
        error.source = error.source or source
        error.format = error.format or format
        raise
