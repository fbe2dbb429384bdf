"""Compile ``modelio/wire/tensorflow.proto`` into the descriptor set ``modelio/wire/tensorflow.binpb``.

Needs ``protoc`` on the path or the package ``grpcio-tools``; what it writes works with every protobuf run time since
4.25. ``--check`` writes nothing and fails where the two files are out of step.

    python tools/compile_proto.py [--check]

The check leaves out the files that are imported: they come with protoc and differ from one release to the next.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIRE = Path(__file__).resolve().parent.parent / "modelio" / "wire"


def compiled() -> bytes:
    """The descriptor set of the ``.proto`` and what it imports, as protoc writes it."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "tensorflow.binpb"
        arguments = [f"-I{WIRE}", "--include_imports", f"--descriptor_set_out={target}", str(WIRE / "tensorflow.proto")]
        if shutil.which("protoc"):
            subprocess.run(["protoc", *arguments], check=True)
        else:
            import grpc_tools
            from grpc_tools import protoc

            include = Path(grpc_tools.__file__).parent / "_proto"
            if protoc.main(["protoc", f"-I{include}", *arguments]) != 0:
                raise SystemExit(1)
        return target.read_bytes()


def own(data: bytes) -> object:
    """The description of ``tensorflow.proto`` itself, the last one in the set."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    return FileDescriptorSet.FromString(data).file[-1]


def main() -> None:
    target = WIRE / "tensorflow.binpb"
    data = compiled()
    if "--check" in sys.argv[1:]:
        if own(data) != own(target.read_bytes()):
            raise SystemExit(f"{target.name} is not what tensorflow.proto says: run tools/compile_proto.py")
    else:
        target.write_bytes(data)


if __name__ == "__main__":
    main()
