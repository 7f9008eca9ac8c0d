#!/usr/bin/env bash
# Runs `ssl-ebm` fit, validate, test or predict on several processes, GPUs or machines, through torchrun:
#
#   scripts/launch_multi_gpu.sh -- fit --config FILE.yaml                      all GPUs of this machine
#   scripts/launch_multi_gpu.sh --processes 2 -- fit --config FILE.yaml        two processes (on the CPU, if there is no GPU)
#   scripts/launch_multi_gpu.sh --nodes 4 --rendezvous HOST:29500 -- fit ...   the same command on each of four machines
#
# The config is that of a single process: the number of devices and nodes comes from torchrun. batch_size counts the items
# of one process. PYTHON names the interpreter (default: that of .venv, else of the active environment).
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
    cat <<'TEXT'

Other commands are for one process each, and say so: `ssl-ebm compare` starts its trainings itself.

options:
  --processes N        processes on each machine (default: one per GPU, or 2 where there is none)
  --nodes N            machines (default: 1)
  --rendezvous H:P     host and port of the first machine; needed with --nodes
  --id NAME            name of the job, the same on all machines (default: ssl_ebm)
TEXT
}

fail() {
    echo "launch_multi_gpu.sh: error: $1" >&2
    exit 2
}

nodes=1
processes=
rendezvous=
id=ssl_ebm
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --) shift && break ;;
        --processes | --nodes | --rendezvous | --id)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --processes) processes=$2 ;;
                --nodes) nodes=$2 ;;
                --rendezvous) rendezvous=$2 ;;
                --id) id=$2 ;;
            esac
            shift 2
            ;;
        -*) fail "unknown option $1 (see --help)" ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no command: write it after --, for example: -- fit --config FILE.yaml"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
    PYTHON=$root/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=python3
fi

if [ -z "$processes" ]; then
    processes=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count() or 2)')
fi

if [ "$nodes" = 1 ]; then
    meeting=(--standalone)
else
    [ -n "$rendezvous" ] || fail "--nodes $nodes needs --rendezvous HOST:PORT of the first machine"
    meeting=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$rendezvous" --rdzv-id "$id")
fi

# torchrun's own default, said here so that it does not warn.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$PYTHON" -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$processes" --module ssl_ebm.cli "$@"
