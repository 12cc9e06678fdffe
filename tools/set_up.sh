#!/usr/bin/env bash
# Make an environment from requirements.lock with this package in it.
# Usage: tools/set_up.sh DIRECTORY PYTHON [GROUP]; GROUP is a dependency group that the lock leaves out.
set -euo pipefail

venv=$1 python=$2 group=${3:-}
cd "$(dirname "$0")/.."

if [ ! -x "$venv/bin/python" ]; then
    if [ -z "$python" ]; then
        echo "No Python 3.11, 3.12 or 3.13 with venv and pip was found." >&2
        echo "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    "$python" -m venv "$venv"
fi
# A checked-out copy is also usable with an environment made by hand; the version still has to fit.
"$venv/bin/python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo "$venv has $("$venv/bin/python" -V), and this course needs 3.11, 3.12 or 3.13: remove $venv, then make again." >&2
    exit 1
}

echo "Installing the locked packages into $venv (about 1 GB the first time) ..."
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
# uv installs in seconds what takes pip a minute; its own version and hashes are in the lock too.
uv_lock=$(mktemp)
trap 'rm -f "$uv_lock"' EXIT
awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock >"$uv_lock"
export VIRTUAL_ENV=$PWD/$venv
uv=("$venv/bin/uv" pip install --quiet)
if "${pip[@]}" --require-hashes -r "$uv_lock" &&
    "${uv[@]}" --require-hashes --compile-bytecode -r requirements.lock &&
    "${uv[@]}" --no-deps --no-build-isolation --editable .; then
    :
else
    echo "uv could not install the lock; trying the same lock with pip, which takes longer ..." >&2
    "${pip[@]}" --require-hashes -r requirements.lock
    "${pip[@]}" --no-deps --no-build-isolation --editable .
fi
if [ -n "$group" ]; then
    echo "Adding the group '$group' ..."
    "${pip[@]}" --group "$group"
fi
# JupyterLab: sliders that survive saving and opening again, and nothing that covers the page.
mkdir -p "$venv/share/jupyter/lab/settings"
cat >"$venv/share/jupyter/lab/settings/overrides.json" <<'END'
{
  "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": true},
  "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}
}
END
touch "$venv/.installed"
