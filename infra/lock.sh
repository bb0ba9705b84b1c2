#!/usr/bin/env bash
# Resolves every requirements-*.lock, for Linux on x86_64 with Python 3.11, with the hashes of all files of a release.
#
#   infra/lock.sh [--upgrade]     without --upgrade, a version stays as locked while it satisfies its requirements
#
# Nothing is installed, so the GPU lock can be made on a machine without a GPU. Only the default index is asked: an extra
# one that has some files of a release would leave the hashes of its other files out.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=infra/uv.sh
. infra/uv.sh

venv=.venv-lock
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
ensure_uv "$venv" || { echo "lock: uv does not run here, and pip cannot make these locks" >&2; exit 1; }
use_pip_settings "$venv"
unset UV_INDEX UV_FIND_LINKS

compile() {
  local name=$1
  shift
  echo "lock: infra/requirements-$name.lock"
  "$venv/bin/uv" pip compile -q --no-config --generate-hashes --annotation-style line \
    --python-platform x86_64-manylinux_2_28 --python-version 3.11 \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
    --output-file "infra/requirements-$name.lock" "${upgrade[@]}" "$@"
}

extras() { printf -- '--extra %s ' "$@"; }

# Of a lock that is installed on top of builds, by default of both: what they have is left to them.
without_builds() {
  printf -- '--constraint %s ' infra/requirements-cpu.lock
  for build in "${@:-cpu}" "${@:-gpu}"; do cat "infra/requirements-$build.lock"; done | sed -n 's/^\([a-z0-9.-]*\)==.*/--no-emit-package \1/p' | sort -u
}

upgrade=("$@")
compile uv infra/requirements-uv.in
# shellcheck disable=SC2046 # words
{
  compile cpu pyproject.toml infra/requirements-cpu.in --override infra/requirements-cpu.overrides \
    $(extras cpu s3 endpoint corpus index languages hf cluster report dev)
  compile gpu pyproject.toml $(extras gpu s3 gcs endpoint corpus index languages hf cluster report dev)
  compile playground infra/requirements-playground.in --override infra/requirements-playground.overrides \
    $(without_builds)
  compile bench infra/requirements-bench.in  $(without_builds)
}
# Programs that the benchmark `peers` compares with, each on top of the CPU build in an environment of its own.
for name in daft curator captionflow; do
  # shellcheck disable=SC2046 # words
  compile $name infra/requirements-$name.in --override infra/requirements-peers.overrides $(without_builds cpu)
done
compile docs infra/requirements-docs.in
