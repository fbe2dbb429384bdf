"""The command line: the same verbs as :mod:`modelio.api`, for people and for scripts.

The only module that prints or exits. Exit codes: 0; 1 for a :class:`~modelio.ModelioError` (one line on stderr); 2 for
a command that cannot be understood.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import click

import modelio
from modelio.errors import ModelioError

__all__ = ["main"]

STANDARD_STREAM = "-"


class _Group(click.Group):
    """Commands in the order of a first session with the tool, not of the alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return ["inspect", "convert", "verify", "identify", "formats"]


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  modelio inspect export/1                     what must be fed, what it answers
  modelio convert model.h5 export/1 --to saved-model
  modelio convert model.h5 model.pb            the suffix says: frozen-graph
  cat model.h5 | modelio convert - - --to saved-model > model.zip
""",
)
@click.version_option(modelio.__version__, prog_name="modelio")
def _cli() -> None:
    """Convert and inspect Keras and TensorFlow models, without TensorFlow.

    A SOURCE is a file, a directory, a zip, or - for standard input; its content says what format it is in.
    """


@_cli.command(
    epilog="""\b
Examples:
  modelio inspect export/1
  modelio inspect model.h5 --weights
  modelio inspect export/1 --signature serving_default --json | jq .signatures
"""
)
@click.argument("source")
@click.option("--signature", metavar="NAME", help="Show this signature only.")
@click.option("--weights", is_flag=True, help="List every weight with its dtype and shape.")
@click.option(
    "--from", "source_format", metavar="FORMAT", help="The source's format, where its content does not say it."
)
@click.option("--json", "as_json", is_flag=True, help="JSON on one line, for programs.")
def inspect(source: str, signature: str | None, weights: bool, source_format: str | None, as_json: bool) -> None:
    """Say what a model needs and answers.

    Names the placeholders that must be fed although no signature declares them, the inputs that nothing needs, and what
    to do about either. No weight is read, TensorFlow is not needed.
    """
    report = modelio.inspect(_source(source), format=source_format)
    if signature is not None:
        report = report.only(signature)
    if as_json:
        click.echo(json.dumps(report.to_dict(weights=weights), separators=(", ", ": ")))
    else:
        click.echo(report.text(weights=weights))


@_cli.command(
    epilog="""\b
Examples:
  modelio convert model.h5 export/1 --to saved-model
  modelio convert export/1 fixed/1 --bind learning_phase=false
  modelio convert export/1 model.pb --outputs scores
  modelio convert model.pb export/1 --to saved-model --set-signature "serving_default(x=x:0) -> (y=net/Softmax:0)"
  modelio convert model.h5 model.pb
  modelio convert old.h5 new.h5 --target keras=3.15
  modelio convert weights.h5 model.h5 --architecture architecture.json
  modelio convert - - --to keras-h5 < weights_and_architecture.zip > model.h5
"""
)
@click.argument("source")
@click.argument("target")
@click.option(
    "--from", "source_format", metavar="FORMAT", help="The source's format, where its content does not say it."
)
@click.option(
    "--to", metavar="FORMAT", help="The target's format; left out, its suffix says it. See `modelio formats`."
)
@click.option(
    "--bind", multiple=True, metavar="NAME=VALUE", help="Make a placeholder a constant; learning_phase=false is usual."
)
@click.option("--signature", metavar="NAME", help="Keep this signature only.")
@click.option("--tags", metavar="TAG,...", help="The MetaGraph that is meant, where a SavedModel has several.")
@click.option(
    "--outputs",
    "--output-node-names",
    "--output_node_names",
    metavar="NAME,...",
    help="All that the graph is to answer: nodes, or keys of a signature's outputs. What these do not need goes.",
)
@click.option("--rename", multiple=True, metavar="OLD=NEW", help="Rename a node, or, where both end in /, a scope.")
@click.option(
    "--set-signature",
    "set_signatures",
    multiple=True,
    metavar='"NAME(KEY=TENSOR, ...) -> (KEY=TENSOR, ...)"',
    help="Add or replace a signature; dtypes and shapes are the graph's.",
)
@click.option("--rename-signature", multiple=True, metavar="OLD=NEW", help="Rename a signature.")
@click.option("--remove-signature", multiple=True, metavar="NAME", help="Remove a signature.")
@click.option("--rename-key", multiple=True, metavar="OLD=NEW", help="Rename an input or output of the signatures.")
@click.option("--inline", is_flag=True, help="Write TensorFlow 2's functions out where they are called.")
@click.option("--thaw", is_flag=True, help="Make large constants variables: no limit of 2 GiB then.")
@click.option(
    "--merge", multiple=True, metavar="SOURCE", help="Put this graph, over the same variables, beside the first."
)
@click.option("--retag", metavar="TAG,...", help="The tags of the result; TensorFlow Serving looks for serve.")
@click.option(
    "--target",
    "release",
    metavar="keras=X.Y|tf=X.Y",
    help="Write the layers as this Keras has them, or refuse what this TensorFlow cannot load: keras=3.15, tf=1.15.",
)
@click.option("--engine", type=click.Choice(["tensorflow"]), help="Let Keras, which must be installed, make the graph.")
@click.option("--verify", is_flag=True, help="Compare the result with the source before it is written.")
@click.option("--architecture", metavar="FILE", help="The architecture that weights alone, or a graph, belong to.")
@click.option("-o", "options", multiple=True, metavar="KEY=VALUE", help="An option of the target's format.")
@click.option("--strict", is_flag=True, help="Fail where something would be lost.")
@click.option("--overwrite", is_flag=True, help="Replace what is at the target.")
def convert(
    source: str,
    target: str,
    source_format: str | None,
    to: str | None,
    bind: tuple[str, ...],
    signature: str | None,
    tags: str | None,
    outputs: str | None,
    rename: tuple[str, ...],
    set_signatures: tuple[str, ...],
    rename_signature: tuple[str, ...],
    remove_signature: tuple[str, ...],
    rename_key: tuple[str, ...],
    inline: bool,
    thaw: bool,
    merge: tuple[str, ...],
    retag: str | None,
    release: str | None,
    engine: str | None,
    verify: bool,
    architecture: str | None,
    options: tuple[str, ...],
    strict: bool,
    overwrite: bool,
) -> None:
    """Write the model in SOURCE to TARGET in another format.

    TARGET is a file or a directory, or - for standard output (a directory goes there as a zip). It appears when it is
    complete, or not at all.
    """
    to_stream = target == STANDARD_STREAM
    if to_stream and to is None:
        raise click.UsageError("standard output has no suffix that says the format: pass --to FORMAT")
    start = time.perf_counter()
    with _patience(f"converting {source}"):
        try:
            conversion = modelio.convert(
                _source(source),
                None if to_stream else target,
                to=to,
                source_format=source_format,
                strict=strict,
                overwrite=overwrite,
                bind=_pairs(bind, "--bind") or None,
                signature=signature,
                tags=tags,
                outputs=None if outputs is None else _listed(outputs),
                rename=_texts(rename, "--rename") or None,
                signatures=_signatures(set_signatures, rename_signature, remove_signature) or None,
                rename_keys=_texts(rename_key, "--rename-key") or None,
                inline=inline,
                thaw=thaw,
                merge=merge or None,
                retag=retag,
                dialect=_released(release, "keras"),
                release=_released(release, "tf"),
                engine=engine,
                verify=verify,
                architecture=architecture,
                **_pairs(options, "-o"),
            )
        except TypeError as error:
            raise click.UsageError(str(error)) from error
    if to_stream:
        sys.stdout.buffer.write(conversion.data or b"")
        return
    for change in conversion.changes:
        click.echo(f"  {change}")
    click.echo(f"{target}: {' -> '.join(conversion.route)}, {time.perf_counter() - start:.2f} s")


@_cli.command(
    epilog="""\b
Examples:
  modelio verify model.h5 export/1
  modelio verify old.h5 new.keras --inputs samples.npz --rtol 1e-4
  modelio verify a.pb b.pb --json | jq .equal
"""
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--inputs",
    type=click.Path(dir_okay=False),
    metavar="FILE.npz",
    help="Arrays by input key; left out, random ones are made, the same on every run.",
)
@click.option("--rtol", type=float, default=1e-5, show_default=True, help="Relative to an output's largest magnitude.")
@click.option("--atol", type=float, default=0.0, show_default=True, help="Beside that.")
@click.option("--json", "as_json", is_flag=True, help="JSON on one line, for programs.")
def verify(first: str, second: str, inputs: str | None, rtol: float, atol: float, as_json: bool) -> None:
    """Say whether models A and B are the same.

    Weights are compared bit for bit, inputs and outputs by their keys, dtypes and shapes, and, where TensorFlow is
    installed, what both answer to the same inputs. Exit code 1: they differ.
    """
    if STANDARD_STREAM == first == second:
        raise click.UsageError("standard input holds one model")
    with _patience(f"comparing {first} and {second}"):
        comparison = modelio.verify(_source(first), _source(second), inputs=inputs, rtol=rtol, atol=atol)
    click.echo(json.dumps(comparison.to_dict(), separators=(", ", ": ")) if as_json else str(comparison))
    if not comparison.equal:
        click.get_current_context().exit(1)


@_cli.command(
    epilog="""\b
Examples:
  modelio identify model.h5
  modelio identify downloads/*
"""
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
def identify(sources: tuple[str, ...]) -> None:
    """Say which format each SOURCE is in, from its content alone."""
    failed = False
    for source in sources:
        try:
            name = modelio.identify(_source(source))
        except (ModelioError, OSError) as error:
            failed = True
            _complain(error)
        else:
            click.echo(name if len(sources) == 1 else f"{source}: {name}")
    if failed:
        click.get_current_context().exit(1)


@_cli.command()
@click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")
def formats(as_json: bool) -> None:
    """List the formats: what each is called, holds, and can do here."""
    known = modelio.formats().values()
    if as_json:
        rows = [
            {
                "name": f.name,
                "level": f.level,
                "shape": f.shape,
                "read": f.read is not None,
                "write": f.write is not None,
                "suffixes": list(f.suffixes),
                "keeps": sorted(f.keeps),
                "summary": f.summary,
            }
            for f in known
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(f.name) for f in known)
    for f in known:
        can = ("r" if f.read else "-") + ("w" if f.write else "-")
        click.echo(f"{f.name:<{width}}  {f.level:<6}  {can}  {f.summary}")


def _source(source: str) -> Any:
    return sys.stdin.buffer.read() if source == STANDARD_STREAM else source


def _pairs(items: tuple[str, ...], option: str) -> dict[str, Any]:
    """``("a=1", "b=x")`` as a mapping; a value that is JSON is taken as that."""
    pairs = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{option} wants NAME=VALUE, not {item!r}")
        try:
            pairs[key] = json.loads(text)
        except json.JSONDecodeError:
            pairs[key] = text
    return pairs


def _texts(items: tuple[str, ...], option: str) -> dict[str, str]:
    """``("a=b",)`` as a mapping."""
    pairs = {}
    for item in items:
        old, equals, new = item.partition("=")
        if not old or not equals:
            raise click.UsageError(f"{option} wants OLD=NEW, not {item!r}")
        pairs[old] = new
    return pairs


def _listed(text: str) -> list[str]:
    return [part for item in text.split(",") if (part := item.strip())]


def _signatures(made: tuple[str, ...], renamed: tuple[str, ...], removed: tuple[str, ...]) -> dict[str, Any]:
    """What becomes of each signature, as :func:`modelio.convert` takes it."""
    changes: dict[str, Any] = dict.fromkeys(removed)
    changes |= _texts(renamed, "--rename-signature")
    for text in made:
        found = re.fullmatch(r"\s*([^\s()]+)\s*\(([^()]*)\)\s*->\s*\(([^()]*)\)\s*", text)
        ends = [[part.partition("=") for part in _listed(end)] for end in found.groups()[1:]] if found else []
        if found is None or not all(key and tensor for end in ends for key, _, tensor in end):
            raise click.UsageError(f"--set-signature wants NAME(KEY=TENSOR, ...) -> (KEY=TENSOR, ...), not {text!r}")
        inputs, outputs = ({key.strip(): tensor.strip() for key, _, tensor in end} for end in ends)
        changes[found[1]] = {"inputs": inputs, "outputs": outputs}
    return changes


def _released(text: str | None, package: str) -> str | None:
    """``keras=3.15`` as a dialect, ``"keras3.15"``, and ``tf=1.15`` as a release; None where the other is meant."""
    if text is None:
        return None
    name, equals, version = text.partition("=")
    if name not in ("keras", "tf") or not equals or not version.replace(".", "").isdigit():
        raise click.UsageError(f"--target wants keras=X.Y or tf=X.Y, keras=3.15 say, not {text!r}")
    if name != package:
        return None
    return f"keras{version}" if package == "keras" else text


@contextlib.contextmanager
def _patience(message: str) -> Iterator[None]:
    """A sign of life on a terminal while something runs, and nothing anywhere else."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield


def _complain(error: BaseException) -> None:
    """One line on stderr, whatever the message holds."""
    if isinstance(error, OSError) and not isinstance(error, ModelioError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error)
    click.echo(f"modelio: {' '.join(text.split())}", err=True)


def _show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    click.echo(f"modelio: note: {message}", err=True)


def main() -> None:
    """Run the command line and exit."""
    gc.set_threshold(100_000)  # a command lives for a second; collecting on the way takes a tenth of it
    warnings.showwarning = _show_warning
    code = _run()
    if sys.gettrace() is None and sys.getprofile() is None:  # who measures wants to see the end
        sys.stderr.flush()
        os._exit(code)  # nothing is left to write; taking the interpreter apart would take another tenth
    sys.exit(code)


def _run() -> int:
    """Run the command and say its exit code, when all output is written."""
    try:
        code = _cli.main(prog_name="modelio", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is flushed into the closed pipe
        return 1
    except (ModelioError, OSError) as error:
        _complain(error)
        return 1
    return code or 0
