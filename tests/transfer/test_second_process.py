"""A trained model goes to a second process in each way there is, and the sender's predictions come back."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

import modelio
from tests.corpus import case, golden

CNN = case("keras-2.0.5_tf-1.2.1/cnn")
"""A network that Keras 2.0.5 trained on handwritten digits, with its own predictions."""

WAYS = (
    "text and a list of arrays",
    "text and arrays by name",
    "pickle",
    "pickle, out of band",
    "shared memory",
    "bytes",
)


def sent(way, model, keep):
    """What goes through the pipe."""
    if way == "text and a list of arrays":
        return model.to_json(), model.get_weights()
    if way == "text and arrays by name":
        arrays = {layer: {name: t.numpy() for name, t in group.items()} for layer, group in model.weights.items()}
        return model.to_json(), arrays
    if way == "pickle":
        return (pickle.dumps(model, 4),)
    if way == "pickle, out of band":
        outside: list[pickle.PickleBuffer] = []
        return pickle.dumps(model, 5, buffer_callback=outside.append), [bytes(b.raw()) for b in outside]
    if way == "shared memory":
        keep.append(modelio.share(model))
        return (keep[-1].handle,)
    return (modelio.convert(model, to="safetensors").data,)


def received(way, parcel):
    """The model on the other side."""
    if way.startswith("text"):
        return modelio.LayerModel.from_json(*parcel)
    if way == "pickle":
        return pickle.loads(parcel[0])
    if way == "pickle, out of band":
        return pickle.loads(parcel[0], buffers=parcel[1])
    return modelio.attach(parcel[0]) if way == "shared memory" else modelio.read(parcel[0])


def serve(pipe):
    """The second process: takes models and images, gives predictions."""
    while (message := pipe.recv()) is not None:
        way, parcel, images = message
        pipe.send(modelio.to_callable(received(way, parcel))(images)["dense_2"])


def test_predictions_come_back():
    pytest.importorskip("tensorflow")
    (images,), (probabilities,) = golden(CNN)
    model = modelio.read(CNN / "model.h5")
    expected = modelio.to_callable(model)(images)["dense_2"]
    np.testing.assert_allclose(expected, probabilities, rtol=1e-5, atol=1e-6)  # those of 2017, to start from
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    kept = []
    try:
        for way in WAYS:
            ours.send((way, sent(way, model, kept), images))
            assert ours.poll(120), way
            assert ours.recv().tobytes() == expected.tobytes(), way
        ours.send(None)
        process.join(60)
        assert process.exitcode == 0
    finally:
        process.kill()
        for shared in kept:
            shared.close()
