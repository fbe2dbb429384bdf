"""Make ``tests/data/checkpoints_tf-1.15.5``, with TensorFlow 1.15.5 on Python 3.7.

    python tools/make_checkpoints.py tests/data/checkpoints_tf-1.15.5

``values.npz`` beside each holds what the session had when it was saved; bfloat16 as its bits (uint16).
"""

from __future__ import annotations

import os
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
PLAIN = ("float64", "float16", "int8", "int16", "uint8", "uint16", "int32", "int64", "complex64", "complex128", "bool")


def build(every_type: bool) -> dict[str, tf.Tensor]:
    """Two partitioned variables, one on a second device, one of every type: what each is called, and its value."""
    values = {}
    v1.set_random_seed(0)
    split = v1.fixed_size_partitioner
    with v1.variable_scope("net", initializer=v1.random_normal_initializer()):
        rows = v1.get_variable("rows", [7, 4], partitioner=split(3))
        columns = v1.get_variable("columns", [4, 10], partitioner=split(2, axis=1))
        with tf.device("/cpu:1"):
            values["net/bias"] = v1.get_variable("bias", [10])
    values["net/rows"], values["net/columns"] = tf.concat(list(rows), 0), tf.concat(list(columns), 1)
    numbers = tf.constant([-100, -1, 0, 1, 100])
    for name in PLAIN:
        value = tf.cast(tf.abs(numbers) if name.startswith("uint") else numbers, name)
        values[name] = tf.Variable(value, name=name, use_resource=name == "int64")
    values["scalar"] = tf.Variable(tf.constant(-(2**40), tf.int64), name="scalar")
    values["empty"] = tf.Variable(tf.zeros([0, 3]), name="empty")
    values["string"] = tf.Variable(tf.constant([b"ab", b"", b"\xff\x01" * 70]), name="string")
    if every_type:
        values["bfloat16"] = tf.Variable(tf.cast([1.5, -2.0, 3e38], tf.bfloat16), name="bfloat16")
    x = v1.placeholder(tf.float32, [None, 7], name="x")
    tf.nn.softmax(tf.matmul(tf.matmul(x, rows), columns) + values["net/bias"], name="y")
    return values


def write(folder: str, version: int, sharded: bool = False, steps: tuple = (None,), graph: bool = True) -> None:
    """One checkpoint after each step, and what it holds."""
    os.makedirs(folder)
    with tf.Graph().as_default(), v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
        values = build(version == v1.train.SaverDef.V2)
        saver = v1.train.Saver(sharded=sharded, write_version=version)
        session.run(v1.global_variables_initializer())
        for step in steps:
            saver.save(
                session,
                os.path.join(folder, "model.ckpt"),
                step,
                write_meta_graph=graph and step == steps[-1],
                strip_default_attrs=True,
            )
        values = session.run(values)
    if "bfloat16" in values:
        values["bfloat16"] = values["bfloat16"].view(np.uint16)
    values["string"] = values["string"].astype("S")
    np.savez_compressed(os.path.join(folder, "values.npz"), **values)


if __name__ == "__main__":
    write(os.path.join(sys.argv[1], "v1"), v1.train.SaverDef.V1)
    write(os.path.join(sys.argv[1], "v1_sharded"), v1.train.SaverDef.V1, sharded=True, graph=False)
    write(os.path.join(sys.argv[1], "v2"), v1.train.SaverDef.V2, steps=(1, 2))
    write(os.path.join(sys.argv[1], "v2_sharded"), v1.train.SaverDef.V2, sharded=True)
