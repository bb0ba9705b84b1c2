#!/usr/bin/env bash
# Installs the programs that `python -m tests.benchmarks.peers` compares with, each into an environment of its own.
#
#   infra/peers.sh [datatrove] [daft] [curator] [captionflow]     default: all of them, into out/peers/NAME
#
# An environment has what its lock lists (datatrove: requirements-bench.lock), with its hashes, and sees the packages of .venv after its
# own (a .pth file): vLLM, torch and Ray are the same for all programs. Nothing is written to .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

names=("$@")
[ ${#names[@]} -gt 0 ] || names=(datatrove daft curator captionflow)
[ -x .venv/bin/python ] || { echo "peers: no .venv; run: make setup" >&2; exit 2; }
shared=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

for name in "${names[@]}"; do
  case "$name" in
    datatrove) lock=infra/requirements-bench.lock ;;
    daft | curator | captionflow) lock=infra/requirements-$name.lock ;;
    *) echo "peers: '$name' is no program of the comparison; allowed: datatrove, daft, curator, captionflow" >&2; exit 2 ;;
  esac
  venv=out/peers/$name
  echo "peers: $name into $venv"
  PYTHON=.venv/bin/python infra/install.sh "$venv" --require-hashes -r "$lock"
  own=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "$shared" > "$own/zz-joyfleet.pth"
  # NeMo Curator starts Ray by this command, whose Python is that of Ray's workers: the one of .venv would not see it.
  printf '#!%s\nfrom ray.scripts.scripts import main\n\nmain()\n' "$PWD/$venv/bin/python" > "$venv/bin/ray"
  chmod +x "$venv/bin/ray"
done
