#!/usr/bin/env bash
# Installs into a virtual environment, which it makes if it is absent: with uv, or with pip where uv does not run.
#
#   infra/install.sh VENV [OPTION...]     options of `pip install`; both programs take them
#
# Everything is pinned, so nothing is resolved: --no-deps. Files of a lock with hashes are checked against them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=infra/uv.sh
. infra/uv.sh

venv=$1
shift
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
if ensure_uv "$venv"; then
  use_pip_settings "$venv"
  exec "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps "$@"
fi
echo "setup: uv does not run here (see above); pip installs instead, which takes minutes" >&2
exec "$venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps "$@"
