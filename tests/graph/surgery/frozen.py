"""What the tests of freezing share: models of the corpus, TensorFlow graphs made on the spot, and how to run a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelio.formats import saved_model
from modelio.graph.analysis import Graph, required_placeholders
from modelio.graph.surgery.freezing import freeze
from modelio.model import GraphModel, Signature, Tensor, TensorSpec
from modelio.source import Source
from modelio.wire import messages
from modelio.wire.bundle import Bundle
from modelio.wire.skim import splice
from tests import clients
from tests.corpus import Case, golden, golden_arrays, record

both = pytest.mark.parametrize("inline", [False, True], ids=["functions", "inlined"])

EXACT = {"mixed_dtypes": 2e-3}
"""How far outputs may be off, relative to the largest: 1e-5 but where float16 rounds differently from version to version."""


def read(folder: Path) -> GraphModel:
    return saved_model.read(Source.of(folder))


def whole(model: GraphModel) -> bytes:
    """The GraphDef with its constants in it."""
    return b"".join(splice(model.graph, [model.constants]).chunks())


def run(model: GraphModel, feeds: Mapping[str, Any], signature: str = "serving_default") -> list[np.ndarray]:
    """What the graph answers in TensorFlow, its outputs in order; only what is needed is fed."""
    spec = model.signatures[signature]
    return clients.frozen(whole(model), feeds, [end.tensor for end in spec.outputs.values()])


def feeds_of(model: GraphModel, case: Case, signature: str = "serving_default") -> dict[str, np.ndarray]:
    """The golden inputs by tensor, and ``False`` for a learning phase that must be fed."""
    spec, (inputs, _) = model.signatures[signature], golden(case)
    if len(inputs) == 1:
        feeds = {next(iter(spec.inputs.values())).tensor: inputs[0]}
    else:
        by_name = {
            **{end.tensor: end for end in spec.inputs.values()},
            **{f"{key}:0": end for key, end in spec.inputs.items()},
        }
        feeds = {by_name[name].tensor: value for name, value in zip(record(case)["frozen_inputs"], inputs, strict=True)}
    return feeds | phases(model, feeds, signature)


def phases(model: GraphModel, feeds: Mapping[str, Any], signature: str = "serving_default") -> dict[str, np.ndarray]:
    """``False`` for each placeholder that must be fed beside these: nothing but learning phases."""
    fetches = [end.tensor for end in model.signatures[signature].outputs.values()]
    needed = required_placeholders(Graph(model.graph), fetches, list(feeds)).placeholders
    left = [one for one in needed if not one.has_default]
    assert all(one.role == "learning_phase" for one in left), left
    return {f"{one.name}:0": np.array(False).astype(one.dtype) for one in left}


def close(got: list[np.ndarray], wanted: list[np.ndarray], tolerance: float = 1e-5) -> None:
    """Equal within the tolerance, relative to the largest number."""
    assert len(got) == len(wanted)
    for one, other in zip(map(np.asarray, got), map(np.asarray, wanted), strict=True):
        assert one.shape == other.shape
        if other.dtype.kind in "fc" and other.size:
            np.testing.assert_allclose(
                one, other, rtol=tolerance, atol=tolerance * max(1e-30, float(np.abs(other).max()))
            )
        else:
            np.testing.assert_array_equal(one, other)


def is_frozen(model: GraphModel) -> bool:
    """No variable is left, in the graph or in a function, nor anything that would take one."""
    assert not model.variables
    for nodes in (model.graph.node, *(one.node_def for one in model.graph.library.function)):
        for node in nodes:
            assert node.op not in ("VarHandleOp", "Variable", "VariableV2"), node.name
            assert not node.op.startswith(("Ref", "ReadVariable", "Assign")), (node.name, node.op)
            assert "_class" not in node.attr
    return True


def checkpoint(folder: Path, name: str, outputs: list[str], inputs: list[str]) -> GraphModel:
    """A checkpoint with its ``.meta``, and a signature of these tensors."""
    meta = messages.parse(messages.MetaGraphDef, (folder / f"{name}.meta").read_bytes(), where=name)
    tree = Source.of(folder).tree
    bundle = Bundle(tree, name)
    return GraphModel(
        graph=meta.graph_def,
        variables={
            key: Tensor(entry.dtype, entry.shape, lambda key=key: bundle.load(key))
            for key, entry in bundle.entries.items()
            if key != "_CHECKPOINTABLE_OBJECT_GRAPH"
        },
        signatures={"serving_default": signature(outputs, inputs)},
        extra={"saver_def": messages.serialize(meta.saver_def)} if meta.HasField("saver_def") else {},
    )


def signature(outputs: list[str], inputs: list[str] = ()) -> Signature:
    def ends(tensors: list[str]) -> dict[str, TensorSpec]:
        return {name.partition(":")[0]: TensorSpec(name, "float32", None) for name in tensors}

    return Signature(ends(inputs), ends(outputs))


def of_session(session: Any, outputs: list[Any], inputs: list[Any] = ()) -> GraphModel:
    """A TensorFlow 1 session as a model: its graph, and the values of its variables under their nodes' names."""
    import tensorflow as tf

    graph = messages.parse(
        messages.GraphDef, session.graph.as_graph_def(add_shapes=True).SerializeToString(), where=None
    )
    with session.graph.as_default():
        variables = tf.compat.v1.global_variables()
    return GraphModel(
        graph=graph,
        variables={variable.op.name: Tensor.of(np.asarray(session.run(variable))) for variable in variables},
        signatures={"serving_default": signature([one.name for one in outputs], [one.name for one in inputs])},
    )


def hybrid_feeds(model: GraphModel, case: Case, name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a signature of the hybrid exports takes, and the golden arrays."""
    arrays = golden_arrays(case)
    known = {"images": arrays["in_0"], "labels": arrays.get("labels")}
    feeds = {}
    for key, end in model.signatures[name].inputs.items():
        feeds[end.tensor] = np.array(False) if "phase" in key else known[key]
    return feeds | phases(model, feeds, name), arrays


# ---------------------------------------- graphs that TensorFlow makes here


def variable(session, name, value, *, resource=False, **options):
    """A variable that holds ``value`` now."""
    made = session.v1.get_variable(name, initializer=value, use_resource=resource, **options)
    session.run(made.initializer)
    return made


def answers_the_same(session, outputs, feeds=None):
    """The graph, frozen, gives what the session gives; the session first, as it may change its variables."""
    feeds = feeds or {}
    model = of_session(session, outputs, list(feeds))
    wanted = session.run(outputs, feeds)
    frozen, changes = freeze(model)
    assert is_frozen(frozen)
    close(run(frozen, {key.name: np.asarray(value) for key, value in feeds.items()}), wanted)
    return frozen, changes


def ops(model) -> dict[str, str]:
    return {node.name: node.op for node in model.graph.node}


def exported(tf, folder, function, variables, *specs):
    """A module with these variables and one signature, saved and read; with what it answers."""
    module = tf.Module()
    module.kept = list(variables)
    traced = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(folder), traced.get_concrete_function())
    return read(folder), traced


def agrees(model, traced, tf, *values, **options):
    frozen, changes = freeze(model, **options)
    assert is_frozen(frozen)
    spec = frozen.signatures["serving_default"]
    feeds = {spec.inputs[key].tensor: value for key, value in zip(sorted(spec.inputs), values, strict=True)}
    wanted = tf.nest.flatten(traced(*map(tf.constant, values)))
    close(run(frozen, feeds), [one.numpy() for one in wanted])
    return frozen, changes
