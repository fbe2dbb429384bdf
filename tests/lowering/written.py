"""Models of one layer as a given Keras writes them, for what no Keras that can be installed today means any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelio.graph.operations import op
from modelio.lowering.assemble import lower
from modelio.model import GraphModel, LayerModel
from tests.lowering.harness import run

__all__ = ["answer", "graph_of", "runs_on"]


def graph_of(
    version: str,
    class_name: str,
    config: Mapping[str, Any],
    shapes: Sequence[Sequence[int | None]],
    arrays: Sequence[np.ndarray] = (),
    dtype: str = "float32",
    outputs: int = 1,
) -> GraphModel:
    """The graph of a functional model that calls one layer on its inputs; ``shapes`` have no batch.

    ``outputs``: so many of the layer's are the model's.
    """
    shape_key = "batch_shape" if version.startswith("3.") else "batch_input_shape"
    inputs = [
        {
            "class_name": "InputLayer",
            "name": f"in_{index}",
            "config": {"name": f"in_{index}", shape_key: [None, *shape], "dtype": dtype},
            "inbound_nodes": [],
        }
        for index, shape in enumerate(shapes)
    ]
    layer = {
        "class_name": class_name,
        "name": "layer",
        "config": {"name": "layer", "trainable": True, **config},
        "inbound_nodes": [[[f"in_{index}", 0, 0] for index in range(len(shapes))]],
    }
    architecture = {
        "class_name": "Model",
        "keras_version": version,
        "backend": "tensorflow",
        "config": {
            "name": "model",
            "layers": [*inputs, layer],
            "input_layers": [[f"in_{index}", 0, 0] for index in range(len(shapes))],
            "output_layers": [["layer", 0, index] for index in range(outputs)],
        },
    }
    graph, _ = lower(LayerModel.from_json(architecture, list(arrays)))
    return graph


def answer(
    version: str, class_name: str, config: Mapping[str, Any], *inputs: np.ndarray, arrays: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """What the layer answers to ``inputs``, according to its graph."""
    graph = graph_of(version, class_name, config, [x.shape[1:] for x in inputs], arrays, inputs[0].dtype.name)
    (result,) = run(graph, list(inputs))
    return result


def runs_on(graph: GraphModel) -> tuple[int, ...]:
    """The first TensorFlow release, of those sampled, that has every op of the graph."""
    return max(tuple(map(int, op(node.op).since.split("."))) for node in graph.graph.node)
