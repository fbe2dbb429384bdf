"""Run an exported network on a digit, where TensorFlow is installed, and compare it with the framework that trained it.

python examples/run_digit.py EXPORT
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import modelio

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up banner is not this example's

GOLDEN = Path(__file__).parent.parent / "tests/data/keras-2.0.5_tf-1.2.1/cnn/golden.npz"
"""Digits of the UCI set, and the scores that Keras 2.0.5 computed for them."""

INK = " .:-=+*#%@"


def draw(digit: np.ndarray) -> str:
    """Eight rows of eight points, 0 to 1, as text."""
    return "\n".join("    " + "".join(2 * INK[round(float(ink) * 9)] for ink in row) for row in digit)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with np.load(GOLDEN) as golden:
        digits, expected = golden["in_0"], golden["out_0"]
    print(draw(digits[0, :, :, 0]))
    if find_spec("tensorflow") is None:
        print(
            "\nTensorFlow is not installed here, and modelio did not need it. To run the network, let a server of\n"
            "TensorFlow models load the folder, or\n\n"
            f"    {os.path.relpath(sys.executable)} -m pip install tensorflow\n"
            f"    {os.path.relpath(sys.executable)} {' '.join(sys.argv)}"
        )
        return
    network = modelio.to_callable(sys.argv[1])
    (scores,) = network(digits).values()
    print("\n    digit       " + "".join(f"{digit:7}" for digit in range(10)))
    print("    Keras 2.0.5 " + "".join(f"{score:7.3f}" for score in expected[0]))
    print("    TensorFlow  " + "".join(f"{score:7.3f}" for score in np.asarray(scores)[0]))
    print(f"\n    largest difference over {len(digits)} digits: {np.abs(np.asarray(scores) - expected).max():.1e}")


if __name__ == "__main__":
    main()
