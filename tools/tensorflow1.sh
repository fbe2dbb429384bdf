#!/usr/bin/env bash
# Prints the path of a Python that has TensorFlow 1.15, and makes one in a virtual environment where it can:
#
#     bash tools/tensorflow1.sh .venv-tensorflow1
#
# Prints nothing, and says why on stderr, where there is no Python 3.7: TensorFlow 1.15 runs on no later one.
set -u
venv=$1

works() { [ -x "$1" ] && "$1" -c 'import tensorflow as tf; assert tf.__version__.startswith("1.15")' >/dev/null 2>&1; }

if ! works "$venv/bin/python"; then
    found=
    for candidate in "$(command -v python3.7)" "$(command -v pyenv >/dev/null && pyenv root)"/versions/3.7.*/bin/python3.7; do
        if [ -x "$candidate" ] && "$candidate" -c 'import venv' >/dev/null 2>&1; then
            found=$candidate
        fi
    done
    if [ -z "$found" ]; then
        echo "no Python 3.7 here: the tests on TensorFlow 1.15 are skipped" >&2
        exit 0
    fi
    echo "== TensorFlow 1.15 on $("$found" --version) in $venv" >&2
    if ! { "$found" -m venv "$venv" &&
        "$venv/bin/python" -m pip --disable-pip-version-check install --quiet \
            'tensorflow==1.15.5' 'numpy<1.19' 'h5py<3' 'protobuf<3.21' >&2 &&
        works "$venv/bin/python"; }; then
        echo "TensorFlow 1.15 cannot be installed here: the tests on it are skipped" >&2
        exit 0
    fi
fi
echo "$PWD/$venv/bin/python" | sed "s|^$PWD//|/|"
