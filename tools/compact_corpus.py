"""Make ``tests/data`` from the whole corpus and the collection of other projects' files.

    python tools/compact_corpus.py CORPUS WILD [TARGET]

What is taken is the table below: every version, format and model at least once, whole where it is small. The target is
``tests/data`` and is replaced, all but its ``README.md``, its ``NOTICE`` and what ``make_checkpoints.py`` made.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

LIMIT = 15_000_000
"""Bytes that ``tests/data`` may have."""

# Patterns of paths in the corpus: "*" stays inside a folder, a final "**" is all below it.
CORPUS = (
    "*/RECORD.json",
    # What Keras says and computes: every version, every layer that has a rule.
    *(
        f"{version}/{file}"
        for version in ("*/cnn", "*/multi_io", "*/nested", "*/convzoo", "*/convnd", "keras-*/mlp")
        for file in ("model.h5", "golden.npz", "architecture.json", "weights_list.npz", "frozen.pb")
    ),
    # The other formats: every version, on the smallest model; and on one larger model of each generation.
    *(
        f"*/multi_io/{file}"
        for file in ("weights.h5", "only.weights.h5", "model.keras", "saved_model/**", "saved_model_tf1/**")
    ),
    *(
        f"{version}/nested/*weights.h5"
        for version in ("keras-1.2.2_*", "keras-2.0.5_*", "tfkeras_tf-2.15.1", "keras-3.*")
    ),
    *(f"{version}/nested/saved_model/**" for version in ("tfkeras_tf-2.15.1", "keras-3.*")),
    "keras-2.0.5_tf-1.2.1/multi_io/checkpoint_tf1/*",
    "keras-2.0.5_tf-1.2.1/cnn/**",
    "tfkeras_tf-2.15.1/convzoo/saved_model/**",
    # What comes before a network: numbers, and words with a vocabulary that was learned.
    *(f"*/norm_pre/{file}" for file in ("model.h5", "golden.npz")),
    *(
        f"{version}/textvec/{file}"
        for version in ("*_tf-2.15.1", "keras-3.*")
        for file in ("model.keras", "golden.npz")
    ),
    # Loops, tables and pictures inside functions.
    *(f"keras-3.15.1_tf-2.21.0/rnn/{file}" for file in ("saved_model/**", "golden.npz")),
    *(f"tf_keras-2.21_tf-2.21.0/textvec/{file}" for file in ("saved_model/**", "golden.npz")),
    "tf_keras-2.21_tf-2.21.0/cnn/saved_model/**",
    "keras-3.15.1_tf-2.21.0/cnn/**",
    # Layers that have no rule yet.
    *(f"*/lambda/{file}" for file in ("model.h5", "golden.npz")),
    *(
        f"{case}/{file}"
        for case in ("keras-2.0.5_*/rnn", "tfkeras_tf-2.8.4/tfops", "keras-3.*/textvec", "keras-3.*/mixed_dtypes")
        for file in ("model.h5", "golden.npz", "frozen.pb")
    ),
    # TensorFlow's own exports, with Keras layers in them and without.
    "hybrid_contrib-keras_tf-1.2.1/**",
    "hybrid_keras-2.3.1_tf-1.15.5/golden.npz",
    "hybrid_keras-2.3.1_tf-1.15.5/learning_phase_missing/**",
    "extra_tf-2.4.4/**",
    "extra_tf-2.21.0/assets/**",
    "extra_tf-2.21.0/multi_signature/**",
)

# Folders and files of other projects, by their path in the collection.
WILD = (
    "KonduitAI+dl4j-test-resources/src/main/resources/keras/simple/cnn_tf_weights.h5",
    "KonduitAI+dl4j-test-resources/src/main/resources/modelimport/keras/configs/keras1/mnist_cnn_tf_config.json",
    "KonduitAI+dl4j-test-resources/src/main/resources/modelimport/keras/examples/mnist_cnn/mnist_cnn_th_keras_2_config.json",
    "KonduitAI+dl4j-test-resources/src/main/resources/modelimport/keras/tfkeras/act_1.h5",
    "KonduitAI+dl4j-test-resources/src/main/resources/modelimport/keras/weights/dense_tensorflow_2.h5",
    "KonduitAI+dl4j-test-resources/src/main/resources/modelimport/keras/weights/embedding_conv1d_tensorflow_1.h5",
    "KonduitAI+konduit-serving/konduit-serving-core/src/main/resources/cast_graph/cast_float16_float32.pb",
    "dragonn-0.2.9/*motif_counting*.weights.hd5",
    "iamaaditya+VQA_Demo/models/CNN/vgg16_weights.h5",
    "jerryzhao173985+reference_model/examples/test_add_1x4x4x4_f32/test_tf.pb",
    "keras-team+keras/keras/src/saving/test_data/pre_pr22362_nested_container.keras",
    "kserve+kserve/tools/tf2openapi/cmd/testdata/TestInvalidSavedModel.pb",
    "kserve+kserve/tools/tf2openapi/generator/testdata/TestColFmtScalar.pb",
    "lightbend+pipelines-model-serving/wine-quality-ml/src/main/resources/wine/models/optimized_WineQuality.pb",
    "onnx+tensorflow-onnx/tests/models/saved_model_with_redundant_inputs",
    "serizba+cppflow/examples/load_frozen_graph/model.pb",
    "spotify+zoltar/zoltar-tests/src/test/resources/trained_model",
    "tensorflow+rust/examples/addition/model.pb",
    "tensorflow+rust/examples/regression/model.pb",
    "tensorflow+rust/test_resources/regression-model",
    "tensorflow+serving/tensorflow_serving/batching/testdata/matrix_half_plus_two/1",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/bad_half_plus_two/00000123/export.meta",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/saved_model_counter/00000123",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/saved_model_half_plus_two_cpu/00000123",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/saved_model_half_plus_two_tf2_cpu/00000123",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/saved_model_half_plus_two_tflite/00000123/*",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/tf_text_regression/01/keras_metadata.pb",
    "tensorflow+serving/tensorflow_serving/servables/tensorflow/testdata/tf_text_regression/01/variables/*",
    "tensorflow+tfjs/tfjs-inference/test_data/model.json",
    "tensorflow+tfjs/tfjs-node/test_objects/saved_model/module_with_multiple_signatures",
)

KEPT = ("README.md", "NOTICE", "checkpoints_tf-1.15.5")
"""What comes from elsewhere."""


def chosen(corpus: Path) -> Iterator[Path]:
    """The files of the corpus that some pattern wants, sorted."""
    unused = set(CORPUS)
    for path in sorted(corpus.rglob("*")):
        name = path.relative_to(corpus).as_posix()
        wanted = {pattern for pattern in CORPUS if path.is_file() and _fits(name, pattern)}
        unused -= wanted
        if wanted:
            yield path
    if unused:
        raise SystemExit(f"nothing fits {', '.join(sorted(unused))}")


def _fits(name: str, pattern: str) -> bool:
    """Whether a path fits a pattern in which ``*`` stays inside a folder and a final ``**`` does not."""
    if pattern.endswith("/**"):
        pattern = pattern[:-3]
        name = "/".join(name.split("/")[: pattern.count("/") + 1])
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch, parts, patterns))


def main() -> None:
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    corpus, wild = (Path(argument).resolve() for argument in sys.argv[1:3])
    default = Path(__file__).resolve().parent.parent / "tests" / "data"
    target = Path(sys.argv[3]).resolve() if len(sys.argv) == 4 else default
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.name not in KEPT:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path in chosen(corpus):
        _copy(path, target / path.relative_to(corpus))
    header, *rows = (wild / "CATALOGUE.tsv").read_text(encoding="utf-8").splitlines()
    kept = []
    for pattern in WILD:
        found = [row for row in rows if fnmatch(row.split("\t")[0], pattern)]
        if not found:
            raise SystemExit(f"the catalogue has no {pattern}")
        for row in found:
            path = wild / row.split("\t")[0]
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    _copy(file, target / "wild" / file.relative_to(wild))
        kept += found
    (target / "wild" / "CATALOGUE.tsv").write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    print(f"{target}: {len(sizes)} files, {sum(sizes):,} bytes")
    if sum(sizes) > LIMIT:
        raise SystemExit(f"more than {LIMIT:,} bytes")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())  # not copyfile's mode or times: a corpus is read-only


if __name__ == "__main__":
    main()
