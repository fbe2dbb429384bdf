"""The op table against the registry of the TensorFlow that is installed, and the rules that read it."""

from __future__ import annotations

import time

import pytest

from modelio.errors import ReadError, UnsafeInput
from modelio.graph import operations
from modelio.graph.operations import REQUIRED, Argument, Attribute, Operation, op
from modelio.wire import messages


def node(op_name: str, **attrs: object) -> object:
    """A NodeDef with the attributes that a test is about: ints, dtype numbers (``T``), lists of dtype numbers."""
    made = messages.NodeDef(name="node", op=op_name)
    for name, value in attrs.items():
        if isinstance(value, list):
            made.attr[name].list.type.extend(value)
        elif name in ("N", "num_split"):
            made.attr[name].i = value
        else:
            made.attr[name].type = value
    return made


FLOAT, INT32, STRING, BOOL = 1, 3, 7, 10


def test_one_tensor_takes_its_dtype_from_an_attribute():
    assert operations.output_dtypes(node("MatMul", T=FLOAT)) == ("float32",)


def test_an_attribute_that_was_stripped_is_its_default():
    assert operations.output_dtypes(node("ArgMax", T=FLOAT)) == ("int64",)
    assert operations.output_dtypes(node("Shape", T=FLOAT)) == ("int32",)


def test_several_outputs_have_dtypes_of_their_own():
    assert operations.output_dtypes(node("Merge", T=FLOAT, N=2)) == ("float32", "int32")
    assert operations.output_arity(node("FusedBatchNormV3", T=FLOAT)) == 6


def test_a_number_attribute_repeats_the_tensor():
    assert operations.output_dtypes(node("Split", T=FLOAT, num_split=3)) == ("float32",) * 3


def test_a_type_list_gives_a_tensor_for_each():
    call = node("StatefulPartitionedCall", Tin=[FLOAT], Tout=[FLOAT, STRING])
    assert operations.output_dtypes(call) == ("float32", "string")
    assert op("StatefulPartitionedCall").input_dtypes(call.attr) == ("float32",)


def test_a_reference_says_so():
    assert operations.output_dtypes(node("VariableV2", dtype=FLOAT)) == ("float32_ref",)
    assert op("AssignSub").input_dtypes(node("AssignSub", T=FLOAT).attr) == ("float32_ref", "float32")


@pytest.mark.parametrize(
    ("made", "name", "index", "position"),
    [
        (node("Switch", T=FLOAT), "output_false", 0, 0),
        (node("Switch", T=FLOAT), "output_true", 0, 1),
        (node("Merge", T=FLOAT, N=2), "value_index", 0, 1),
        (node("Split", T=FLOAT, num_split=3), "output", 2, 2),
        (node("While", T=[FLOAT, INT32, BOOL]), "output", 2, 2),
        (node("FusedBatchNormV3", T=FLOAT), "batch_variance", 0, 2),
    ],
)
def test_the_names_of_tensors_inside_a_function(made, name, index, position):
    assert operations.flat_index(op(made.op), made.attr, name, index) == position


def test_the_position_counts_lists_of_any_length():
    # ParseExample: sparse_indices: Nsparse * int64, sparse_values: sparse_types, sparse_shapes, dense_values: Tdense
    parse = messages.NodeDef(name="parse", op="ParseExample")
    parse.attr["Nsparse"].i = 2
    parse.attr["Ndense"].i = 3
    parse.attr["sparse_types"].list.type.extend([STRING, FLOAT])
    parse.attr["Tdense"].list.type.extend([FLOAT] * 3)
    assert operations.flat_index(op("ParseExample"), parse.attr, "sparse_values", 1) == 3
    assert operations.flat_index(op("ParseExample"), parse.attr, "dense_values", 0) == 6
    assert operations.output_arity(parse) == 9


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (node("NoSuchOp"), "the op 'NoSuchOp' is neither one of TensorFlow's (up to 2.21.0) nor defined in this file"),
        (node("MatMul"), "the attribute 'T' of the op MatMul is missing, and it has no default"),
        (node("Split", T=FLOAT, num_split=-1), "the attribute 'num_split' of the op Split asks for -1 tensors"),
        (node("Split", T=[FLOAT], num_split=2), "the attribute 'T' of the op Split is no dtype"),
        (
            node("IfElse", Tout=FLOAT),
            "the op 'IfElse' is neither one of TensorFlow's (up to 2.21.0) nor defined in this file",
        ),
        (node("If", Tout=FLOAT), "the attribute 'Tout' of the op If is no list of dtypes"),
    ],
)
def test_a_broken_node_is_refused(made, reason):
    with pytest.raises(ReadError) as caught:
        operations.output_dtypes(made)
    assert caught.value.reason == reason
    assert caught.value.where == "node"


def test_a_node_does_not_make_lists_of_any_length():
    with pytest.raises(UnsafeInput, match="asks for 1,099,511,627,776 tensors"):
        operations.output_dtypes(node("Split", T=FLOAT, num_split=1 << 40))


def test_an_output_that_the_op_has_not():
    switch = node("Switch", T=FLOAT)
    with pytest.raises(ReadError, match="the op Switch has no output 'output'"):
        operations.flat_index(op("Switch"), switch.attr, "output", 0)
    with pytest.raises(ReadError, match="the output 'output_true' of the op Switch holds 1 tensors, no number 1"):
        operations.flat_index(op("Switch"), switch.attr, "output_true", 1)


def test_the_files_own_functions_come_first():
    signature = messages.OpDef(name="double", is_stateful=True)
    signature.input_arg.add(name="x", type=FLOAT)
    signature.output_arg.add(name="y", type=FLOAT)
    signature.output_arg.add(name="text", type_attr="S")
    signature.attr.add(name="S", type="type").default_value.type = STRING
    library = {"double": Operation.of(signature)}
    assert library["double"] == Operation(
        name="double",
        inputs=(Argument("x", dtype="float32"),),
        outputs=(Argument("y", dtype="float32"), Argument("text", type_attr="S")),
        attrs={"S": Attribute("type", "string")},
        stateful=True,
    )
    assert operations.output_dtypes(node("double"), library) == ("float32", "string")


def test_values_are_pythons_own():
    made = messages.NodeDef(op="Placeholder", name="x")
    assert operations.attribute_value(made, "shape") is None  # its default: a shape of unknown rank
    made.attr["shape"].shape.dim.add(size=-1)
    made.attr["shape"].shape.dim.add(size=64)
    assert operations.attribute_value(made, "shape") == (None, 64)
    assert operations.attribute_value(messages.NodeDef(op="Conv2D"), "data_format") == "NHWC"
    assert operations.attribute_value(messages.NodeDef(op="Conv2D"), "dilations") == (1, 1, 1, 1)
    with pytest.raises(ReadError):
        operations.attribute_value(messages.NodeDef(op="Conv2D"), "padding")


def test_ages():
    assert operations.versions()[0] == "0.12.1"
    assert op("MatMul").since == "0.12.1"
    assert op("FusedBatchNormV3").since == "1.15.5"  # TensorFlow 1.14
    assert op("Where").last_seen == operations.versions()[-1]


def test_the_first_lookup_is_quick():
    operations._table.cache_clear()
    operations._operation.cache_clear()
    start = time.process_time()
    assert op("MatMul") is not None
    assert time.process_time() - start < 0.1  # 8 ms on a slow machine; the whole of `inspect` has 300


def test_every_op_of_the_installed_tensorflow():
    tensorflow = pytest.importorskip("tensorflow")
    if tensorflow.__version__ != operations.versions()[-1]:
        pytest.skip(f"the table's newest release is {operations.versions()[-1]}")
    from tensorflow.python.framework import op_def_registry

    names = list(operations._table()[1])
    compared = 0
    for name in names:
        theirs = op_def_registry.get(name)
        if theirs is None or op(name).last_seen != operations.versions()[-1]:
            continue
        ours = op(name)
        definition = messages.OpDef.FromString(theirs.SerializeToString())
        expected = Operation.of(definition)
        assert ours.inputs == expected.inputs, name
        assert ours.outputs == expected.outputs, name
        assert ours.stateful == expected.stateful, name
        assert set(ours.attrs) == set(expected.attrs), name
        for key, attribute in ours.attrs.items():
            assert attribute.type == expected.attrs[key].type, (name, key)
            assert (attribute.default is REQUIRED) == (expected.attrs[key].default is REQUIRED), (name, key)
            if attribute.type == "float" and attribute.default is not REQUIRED:
                assert attribute.default == pytest.approx(expected.attrs[key].default)
            elif attribute.type not in ("tensor", "list(float)", "list(tensor)"):
                assert attribute.default == expected.attrs[key].default, (name, key)
        compared += 1
    assert compared > 1200
