"""HDF5: what h5py reads is read, without its bytes being touched; what a file must not ask for is refused."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator

import h5py
import ml_dtypes
import numpy as np
import pytest

from modelio.errors import ModelioError, ReadError, UnsafeInput, WriteError
from modelio.model import Tensor
from modelio.wire.hdf5 import File, Writer
from modelio.wire.window import FileWindow, MemoryWindow
from tests.corpus import case, cases, strays

FILES = [
    *(one / name for one in cases() for name in ("model.h5", "weights.h5", "only.weights.h5") if (one / name).exists()),
    *(stray.path for stray in strays(kind="Keras HDF5*")),
]
every = pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))


def built(build: Callable[[h5py.File], object], **options: object) -> bytes:
    """The bytes of a file that h5py makes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        build(file)
    return stream.getvalue()


def opened(data: bytes) -> File:
    return File(MemoryWindow(data))


class Counting(FileWindow):
    """A window that knows how much was read through it."""

    count = 0

    def read(self, offset: int, length: int) -> bytes:
        self.count += length
        return super().read(offset, length)


# ------------------------------------------------------------------------------------------------------------- reading


@every
def test_numbers_are_those_that_h5py_reads(path):
    with h5py.File(path) as other, File(FileWindow(str(path))) as file:
        found: dict[str, np.ndarray] = {}
        other.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        assert sorted(leaf for leaf in file.leaves() if file.is_dataset(leaf)) == sorted(found)
        for name, numbers in found.items():
            values = file.dataset(name)
            assert (values.dtype, values.shape) == (numbers.dtype, numbers.shape)
            assert np.array_equal(values.numpy(), numbers)
            assert b"".join(map(bytes, values.chunks())) == numbers.tobytes()


@every
def test_names_are_those_that_h5py_reads(path):
    def check(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if "weight_names" in item.attrs:
            wanted = [n.decode() if isinstance(n, bytes) else n for n in item.attrs["weight_names"]]
            assert file.names(name, "weight_names") == wanted

    with h5py.File(path) as other, File(FileWindow(str(path))) as file:
        other.visititems(check)
        assert file.attributes() == sorted(other.attrs)


def test_structure_is_read_without_the_numbers(tmp_path):
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as other:
        for number in range(20):
            other[f"layer_{number}/kernel"] = np.full(1 << 17, number, "float32")
    window = Counting(str(path))
    with File(window) as file:
        values = [file.dataset(f"layer_{number}/kernel") for number in range(20)]
    assert window.count < 300_000  # of ten million
    assert values[7].numpy()[-1] == 7  # after the file is closed


DTYPES = {
    "scalar": (np.float32(2.5), {}),
    "nothing": (np.zeros((0, 3), "int32"), {}),
    "half": (np.arange(5, dtype="float16"), {}),
    "big-endian": (np.arange(6, dtype=">f4").reshape(2, 3), {}),
    "bool": (np.array([True, False, True]), {}),
    "complex": (np.array([1 + 2j], "complex64"), {}),
    "int64": (np.array([-(2**62)]), {}),
    "chunked": (np.arange(5000.0).reshape(50, 100), {"chunks": (7, 33)}),
    "deflated": (np.arange(300_000.0).reshape(3000, 100), {"compression": "gzip", "shuffle": True}),
    "lzf": (np.arange(400, dtype=">i2"), {"compression": "lzf", "fletcher32": True}),
    "chunked bool": (np.array([[True, False]]), {"chunks": True}),
}


@pytest.mark.parametrize(("numbers", "options"), DTYPES.values(), ids=DTYPES)
def test_every_way_to_store_numbers(numbers, options):
    data = built(lambda file: file.create_dataset("a/b", data=numbers, **options))
    with opened(data) as file:
        values = file.dataset("a/b")
    native = numbers.astype(numbers.dtype.newbyteorder("="))
    assert values.dtype == native.dtype
    assert values.dtype.isnative
    assert values.shape == numbers.shape
    assert values.numpy().dtype == native.dtype
    assert np.array_equal(values.numpy(), native)
    assert b"".join(map(bytes, values.chunks())) == native.tobytes()


def test_compact_numbers():
    def build(file: h5py.File) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        dataset = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), plist)
        h5py.Dataset(dataset)[:] = [1, 2, 3]

    with opened(built(build)) as file:
        assert file.dataset("a").numpy().tolist() == [1, 2, 3]


@pytest.mark.parametrize("chunks", [None, (2,)], ids=["contiguous", "chunked"])
@pytest.mark.parametrize(("dtype", "said"), [("bfloat16", None), ("bfloat16", "bfloat16"), ("float8_e4m3fn",) * 2])
def test_types_that_hdf5_has_not(dtype, said, chunks):
    """As Keras writes them: bytes of no type, with their type beside them in weights alone, without in whole models."""
    numbers = np.array([1, -2, 0.5], getattr(ml_dtypes, dtype))

    def build(file: h5py.File) -> None:
        dataset = file.create_dataset("a", data=numbers, chunks=chunks)
        if said:
            dataset.attrs["dtype"] = said

    with opened(built(build)) as file:
        values = file.dataset("a")
    assert values.dtype == numbers.dtype
    assert values.numpy().tobytes() == numbers.tobytes()
    assert b"".join(map(bytes, values.chunks())) == numbers.tobytes()


def test_attributes():
    def build(file: h5py.File) -> None:
        group = file.create_group("group")
        group.attrs["bytes"] = b"abc"
        group.attrs["text"] = "Größe"
        group.attrs["fixed"] = np.array([b"a", b"bcd"])
        group.attrs["variable"] = ["a", "Größe"]
        group.attrs["number"] = 3
        group.attrs["numbers"] = np.array([1.5, 2.5], ">f8")
        group.attrs["none"] = []
        group.attrs["empty"] = h5py.Empty("f4")

    with opened(built(build)) as file:
        assert file.attribute("group", "bytes") == "abc"
        assert file.attribute("group", "text") == "Größe"
        assert file.attribute("group", "fixed") == ["a", "bcd"]
        assert file.attribute("group", "variable") == ["a", "Größe"]
        assert file.attribute("group", "number") == 3
        assert np.array_equal(file.attribute("group", "numbers"), [1.5, 2.5])
        assert file.attribute("group", "absent") is None
        assert file.names("group", "fixed") == ["a", "bcd"]
        assert file.names("group", "none") == []
        assert file.names("group", "empty") == []
        assert file.names("group", "absent") is None
        names = file.attributes("group")
    assert names == ["bytes", "empty", "fixed", "none", "number", "numbers", "text", "variable"]


def test_names_that_keras_spread_over_attributes():
    def build(file: h5py.File) -> None:
        file.attrs["names0"] = [b"a", b"b"]
        file.attrs["names1"] = np.array([b"c"])
        file.attrs["names3"] = np.array([b"not reached"])

    with opened(built(build)) as file:
        assert file.names("", "names") == ["a", "b", "c"]


# ------------------------------------------------------------------------------------------------- broken, and hostile


def shared_group(file: h5py.File) -> None:
    file["a/w"] = [1.0]
    file["a/again"] = file["a"]  # a group in itself


def external_numbers(file: h5py.File) -> None:
    file.create_dataset("a", (100,), "u1", external=[("/etc/passwd", 0, 100)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", (4,))
    file.create_virtual_dataset("a", layout)


def plug_in(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    dataset = h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), plist)
    h5py.Dataset(dataset)[:] = 1


def half_written(file: h5py.File) -> None:
    file.create_dataset("a", (8,), "f4", chunks=(4,))[:4] = 1


def bomb(file: h5py.File) -> None:
    dataset = file.create_dataset("a", (1 << 30,), "f4", chunks=(1 << 28,), compression="gzip")
    dataset.id.write_direct_chunk((0,), b"x")
    for chunk in range(1, 4):
        dataset.id.write_direct_chunk((chunk << 28,), b"x")


def deep(file: h5py.File) -> None:
    file.create_group("/".join(["a"] * 100))


REFUSED = {
    "soft link": (lambda f: f.update(a=h5py.SoftLink("/etc")), UnsafeInput, "soft links are not followed", "a"),
    "external link": (
        lambda f: f.update(a=h5py.ExternalLink("b.h5", "/")),
        UnsafeInput,
        "external links are not followed",
        "a",
    ),
    "numbers in another file": (external_numbers, UnsafeInput, "its numbers lie in another file (b'/etc/passwd')", "a"),
    "virtual": (virtual, UnsafeInput, "it is made up of datasets in other files", "a"),
    "plug-in filter": (plug_in, ReadError, "compressed with filter 32015, a plug-in", "a"),
    "bomb": (bomb, UnsafeInput, "4 stored bytes that claim to unpack to 4,294,967,296", "a"),
    "deep": (deep, UnsafeInput, "groups nested deeper than 64: this is no model", "a"),
    "nothing stored": (lambda f: f.create_dataset("a", (3,), "f4"), ReadError, "no numbers are stored", "a"),
    "half stored": (half_written, ReadError, "2 chunks are declared, 1 are stored: not fully written", "a"),
    "null": (lambda f: f.create_dataset("a", data=h5py.Empty("f4")), ReadError, "the dataset has no value", "a"),
    "text": (lambda f: f.create_dataset("a", data=["x"]), ReadError, "this holds text, and numbers are wanted", "a"),
    "structure": (
        lambda f: f.create_dataset("a", data=np.zeros(2, "i4,f4")),
        ReadError,
        "this holds structures, and numbers are wanted",
        "a",
    ),
    "reference": (
        lambda f: f.create_dataset("a", data=f.ref, dtype=h5py.ref_dtype),
        ReadError,
        "this holds references, which are not followed, and numbers are wanted",
        "a",
    ),
    "bytes of no type": (
        lambda f: f.create_dataset("a", data=np.zeros(2, "V4")),
        ReadError,
        "elements of 4 opaque bytes, whose attribute dtype does not say what they are",
        "a",
    ),
    "a group": (lambda f: f.create_group("a/b"), ReadError, "this is a group, and a dataset is wanted", "a"),
    "absent": (lambda f: f.create_group("b"), ReadError, "the file has no such dataset", "a"),
}


@pytest.mark.parametrize(("build", "error", "sentence", "where"), REFUSED.values(), ids=REFUSED)
def test_refused(build, error, sentence, where):
    with opened(built(build)) as file, pytest.raises(error) as caught:
        file.dataset("a")
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == where


def test_refusing_a_bomb_takes_no_memory():
    data = built(bomb)
    tracemalloc.start()
    with opened(data) as file, pytest.raises(UnsafeInput):
        file.dataset("a")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_group_in_itself_is_walked_once():
    with opened(built(shared_group)) as file:
        assert sorted(file.leaves()) == ["a/again", "a/w"]
        with pytest.raises(ReadError, match="the file has no such dataset"):
            file.dataset("a/again/w")


BAD_NAMES = {
    "a text": ("one", "this is one text, and a list of names is wanted"),
    "numbers": (np.arange(3), "this holds numbers, and a list of names is wanted"),
    "references": (np.array([None], h5py.ref_dtype), "this holds references, which are not followed"),
    "not UTF-8": (np.array([b"\xff"]), "a text in the file is not UTF-8"),
}


@pytest.mark.parametrize(("value", "sentence"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_bad_names(value, sentence):
    def build(file: h5py.File) -> None:
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            file.attrs.create("names", [file.ref], dtype=h5py.ref_dtype)
        else:
            file.attrs["names"] = value

    with opened(built(build)) as file, pytest.raises(ReadError) as caught:
        file.names("", "names")
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == "@names"


@pytest.mark.parametrize("keep", [0, 4, 8, 20, 96, 1000, -1])
def test_a_file_cut_short(keep):
    data = (case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5").read_bytes()
    with pytest.raises(ReadError) as caught:
        opened(data[:keep]).names("", "layer_names")
    if keep in (96, 1000, -1):
        assert (
            caught.value.reason == f"the file is cut short: {len(data[:keep]):,} of its {len(data):,} bytes are there"
        )


@pytest.mark.parametrize("data", [b"not HDF5", b"\0" * 512 + b"\x89HDF\r\n\x1a\n" + b"\0" * 512, b""])
def test_not_hdf5(data):
    with pytest.raises(ReadError, match="this is not an HDF5 file"):
        opened(data)


def test_damage_is_a_read_error_wherever_it_is():
    data = (case("keras-2.0.5_tf-1.2.1/mlp") / "model.h5").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for place in random.integers(8, 12_000, 3):
            damaged[place] = random.integers(256)
        try:
            with opened(bytes(damaged)) as file:
                for leaf in file.leaves("model_weights"):
                    if file.is_dataset(leaf):
                        file.dataset(leaf).numpy()
        except ModelioError:
            refused += 1
    assert refused > 20


def test_a_window_that_fails_says_so_itself():
    class Failing(MemoryWindow):
        def read(self, offset: int, length: int) -> memoryview:
            if offset > 20_000:
                raise ReadError("the disk is gone")
            return super().read(offset, length)

    data = (case("keras-2.0.5_tf-1.2.1/cnn") / "model.h5").read_bytes()
    with pytest.raises(ReadError, match="the disk is gone"), File(Failing(data)) as file:
        list(file.leaves())


# ------------------------------------------------------------------------------------------------------------- writing


def written(write: Callable[[Writer], object]) -> bytes:
    stream = io.BytesIO()
    with Writer(stream) as file:
        write(file)
    return stream.getvalue()


def example(file: Writer) -> None:
    file.attribute("", "text", "Größe")
    file.group("a/empty")
    file.names("a/empty", "weight_names", [])
    file.names("a", "weight_names", ["k:0", "scope/b:0"])
    file.attribute("a", "numbers", np.array([1, 2]))
    file.dataset("a/k:0", Tensor.of(np.arange(6, dtype="float32").reshape(2, 3)))
    file.dataset("a/scope/b:0", Tensor.of(np.float64(2)))
    file.dataset("a/none", Tensor.of(np.zeros((3, 0), "int64")))
    file.dataset("a/bool", Tensor.of(np.array([True, False])))
    file.dataset("a/narrow", Tensor.of(np.array([1.5], ml_dtypes.bfloat16)))


def test_h5py_reads_what_is_written():
    with h5py.File(io.BytesIO(written(example))) as other:
        assert other.attrs["text"] == "Größe"
        assert other["a"].attrs["weight_names"].tolist() == [b"k:0", b"scope/b:0"]
        assert other["a"].attrs["numbers"].tolist() == [1, 2]
        empty = other["a/empty"].attrs["weight_names"]
        assert (empty.dtype, empty.shape) == (np.float64, (0,))  # what Keras writes for a layer without weights
        assert other["a/k:0"][()].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert other["a/scope/b:0"][()] == 2
        assert other["a/none"].shape == (3, 0)
        assert other["a/bool"][()].tolist() == [True, False]
        assert other["a/narrow"].attrs["dtype"] == "bfloat16"
        assert np.array_equal(other["a/narrow"][()].view(ml_dtypes.bfloat16), [1.5])


def test_what_is_written_reads_back():
    with opened(written(example)) as file:
        assert file.attribute("", "text") == "Größe"
        assert file.names("a", "weight_names") == ["k:0", "scope/b:0"]
        assert file.names("a/empty", "weight_names") == []
        assert file.dataset("a/narrow").dtype == ml_dtypes.bfloat16
        assert file.dataset("a/k:0").numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_same_calls_give_the_same_bytes(python):
    script = """
        import hashlib
        from tests.wire.test_hdf5 import example, written
        print(hashlib.sha256(written(example)).hexdigest())
    """
    assert python(script) == python(script)


def test_no_time_is_written():
    with h5py.File(io.BytesIO(written(example))) as other:
        assert h5py.h5o.get_info(other["a/k:0"].id).mtime == 0


def test_names_beyond_64_kb_are_spread_as_keras_spreads_them():
    names = [f"block_{number}/{'x' * 60}/kernel:0" for number in range(3000)]
    data = written(lambda file: file.names("", "layer_names", names))
    with h5py.File(io.BytesIO(data)) as other:
        parts = [f"layer_names{number}" for number in range(len(other.attrs))]
        assert len(parts) > 1
        assert sorted(other.attrs) == sorted(parts)
        assert all(other.attrs[part].nbytes <= 64512 for part in parts)
        assert [name.decode() for part in parts for name in other.attrs[part]] == names
    with opened(data) as file:
        assert file.names("", "layer_names") == names


def test_numbers_stream_through(tmp_path):
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    large = Tensor("float32", (1 << 24,), lambda: pytest.fail("the whole tensor is asked for"), pieces)
    with open(tmp_path / "large.h5", "w+b") as stream:
        tracemalloc.start()
        with Writer(stream) as file:
            file.dataset("a", large)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20
    with h5py.File(tmp_path / "large.h5") as other:
        assert other["a"].shape == (1 << 24,)
        assert other["a"][-1] == 0


def short() -> Iterator[bytes]:
    yield b"1234"


UNWRITABLE = {
    "two at one path": (lambda f: [f.dataset("a/b", Tensor.of([1.0])) for _ in "12"], "two weights would have", "a/b"),
    "one below another": (
        lambda f: [f.dataset(path, Tensor.of([1.0])) for path in ("a", "a/b")],
        "HDF5 cannot hold this",
        "a/b",
    ),
    "text": (lambda f: f.dataset("a", Tensor.of(np.array(["x"]))), "elements of str", "a"),
    "objects": (lambda f: f.dataset("a", Tensor.of(np.array([b"x"], object))), "elements of object", "a"),
    "a zero byte": (lambda f: f.group("a\0b"), "HDF5 cannot hold a zero byte", "a\0b"),
    "no UTF-8": (lambda f: f.names("", "n", ["\ud800"]), "this cannot be written as UTF-8", "@n"),
    "a very long name": (lambda f: f.names("", "n", ["x" * 70_000]), "a name of 70,000 bytes", "@n"),
    "too few bytes": (
        lambda f: f.dataset("a", Tensor("float32", (2,), lambda: np.zeros(2), short)),
        "8 bytes are declared, and 4 came",
        "a",
    ),
}


@pytest.mark.parametrize(("write", "sentence", "where"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_unwritable(write, sentence, where):
    with pytest.raises(WriteError) as caught:
        written(write)
    assert caught.value.reason.startswith(sentence)
    assert caught.value.where == where
