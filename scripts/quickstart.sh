#!/usr/bin/env bash
# From a fresh clone to a report: trains least squares and a latent-variable energy-based model to predict the next frame
# of moving digits, three seeds each, and compares them. Arguments go to `ssl-ebm compare`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/environment.sh
prepare_environment .

configs=configs/frame_prediction
"$python" -m ssl_ebm.cli compare \
    --config "$configs/quickstart_least_squares.yaml" \
    --config "$configs/quickstart_latent_ebm.yaml" \
    --seeds 0 1 2 --out runs/quickstart "$@"
