"""Compile the op table of modelio from a registry sample: ``python tools/compile_operations.py ops.json.gz``.

The sample is one JSON document, ``{"versions_sampled": [...], "ops": {name: {inputs, outputs, attrs, since, last_seen,
stateful}}}``, taken from the op registries of the TensorFlow releases that it lists. The table is the same facts, one
JSON array a line, in the notation of TensorFlow's own ``REGISTER_OP`` (see ``modelio/graph/operations.py``, which reads
it): small to ship, and an op costs nothing until somebody asks for it.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "modelio" / "graph" / "operations.json.gz"

DTYPES = {"DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16"}


def dtype(name: str) -> str:
    """``DT_FLOAT`` -> ``float32``."""
    return DTYPES.get(name) or name.removeprefix("DT_").lower()


def argument(row: dict[str, Any]) -> str:
    """``xs: Ref(N * T)``."""
    spec = row.get("type_attr") or row.get("type_list_attr") or dtype(row["type"])
    if "number_attr" in row:
        spec = f"{row['number_attr']} * {spec}"
    if row.get("is_ref"):
        spec = f"Ref({spec})"
    return f"{row['name']}: {spec}"


def shape(row: dict[str, Any]) -> list[int | None] | None:
    """None: the rank is unknown."""
    if row.get("unknown_rank"):
        return None
    sizes = [int(dimension["size"]) for dimension in row.get("dim", [])]
    return [None if size < 0 else size for size in sizes]


def tensor(row: dict[str, Any]) -> dict[str, Any]:
    """The few tensor defaults there are hold integers."""
    return {"dtype": dtype(row["dtype"]), "shape": shape(row["tensor_shape"]), "values": row["int_val"]}


VALUES = {
    "string": ("s", lambda text: base64.b64decode(text).decode()),
    "int": ("i", int),
    "float": ("f", float),
    "bool": ("b", bool),
    "type": ("type", dtype),
    "shape": ("shape", shape),
    "tensor": ("tensor", tensor),
    "func": ("func", lambda row: row["name"]),
}


def attribute(row: dict[str, Any]) -> str | list[Any]:
    """The type alone, or ``[type, default]``."""
    kind = row["type"]
    if "default" not in row:
        return str(kind)
    element = kind.removeprefix("list(").removesuffix(")")
    field, value = VALUES[element]
    if element == kind:
        return [kind, value(row["default"][field])]
    return [kind, [value(item) for item in row["default"]["list"].get(field, [])]]


def compile_table(sample: dict[str, Any]) -> bytes:
    """The table's lines: the releases first, then an op a line, by name."""
    versions = sample["versions_sampled"]
    rows: list[Any] = [versions]
    for name, row in sorted(sample["ops"].items()):
        rows.append(
            [
                name,
                versions.index(row["since"]),
                versions.index(row["last_seen"]),
                int(row.get("stateful", False)),
                [argument(item) for item in row["inputs"]],
                [argument(item) for item in row["outputs"]],
                {key: attribute(item) for key, item in sorted(row["attrs"].items())},
            ]
        )
    return "\n".join(json.dumps(row, separators=(",", ":")) for row in rows).encode()


if __name__ == "__main__":
    with gzip.open(sys.argv[1]) as source:
        lines = compile_table(json.load(source))
    TABLE.write_bytes(gzip.compress(lines, 9, mtime=0))
