#!/usr/bin/env bash
# Checks everything: style, types, tests. Makes .venv and installs what is missing. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/environment.sh
prepare_environment '.[dev]' ruff mypy pytest xdist pytest_timeout hypothesis sklearn torchebm transformers timm \
    onnx onnxscript onnxruntime

export OMP_NUM_THREADS=1 # the test processes share the cores
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy ssl_ebm
# A file's tests stay in one process, whose fixtures they share; files in the order of tests/conftest.py.
"$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 "$@"
