"""Which operation a loader runs first, wherever the file says it."""

from __future__ import annotations

import numpy as np
import pytest

from modelio.graph.tables import MAIN_OP, digest, initializer_of, main_op
from modelio.model import GraphModel
from modelio.wire import messages


def signature(name: str) -> bytes:
    """As TensorFlow 1.14 and later name it: an output of a signature that nobody can call."""
    definition = messages.SignatureDef()
    definition.outputs["__saved_model_init_op"].name = name
    return messages.serialize(definition)


LEGACY, SIGNATURE = "collection_def/legacy_init_op", "signature_def/__saved_model_init_op"


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({}, None),
        ({MAIN_OP: main_op("init")}, "init"),
        ({LEGACY: main_op("group_deps:0")}, "group_deps"),
        ({MAIN_OP: main_op("init"), LEGACY: main_op("group_deps")}, "init"),
        ({SIGNATURE: signature("NoOp:0"), MAIN_OP: main_op("init")}, "NoOp"),
        ({MAIN_OP: messages.serialize(messages.CollectionDef())}, None),
    ],
)
def test_the_initializer(extra, found):
    assert initializer_of(GraphModel(messages.GraphDef(), extra=extra)) == found


def test_a_digest_tells_contents_apart():
    words = [np.array(list(one), object) for one in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"], [b"abc", b""])]
    numbers = [np.array(one, np.int64) for one in ([1, 2], [2, 1], [[1, 2]])]
    assert len({digest(one) for one in (*words, *numbers)}) == 7
    assert digest(words[0], numbers[0]) != digest(numbers[0], words[0])
