# Sourced by install.sh and lock.sh: uv inside a virtual environment, with the package indexes that pip is configured for.

# ensure_uv VENV: put the pinned uv into VENV; false if it cannot be had or does not start on this machine.
ensure_uv() {
  local venv=$1 pinned
  pinned=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' infra/requirements-uv.lock)
  if [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" != "$pinned" ]; then
    "$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps -r infra/requirements-uv.lock || return 1
  fi
  "$venv/bin/uv" --version >/dev/null || return 1
}

# use_pip_settings VENV: export pip's indexes, links and certificate for uv, which does not read pip's configuration.
use_pip_settings() {
  local settings
  settings=$("$1/bin/python" infra/uv_settings.py)
  eval "$settings"
}
