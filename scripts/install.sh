#!/bin/sh
# Installs a pinned requirements file and then the project itself, editable, into a virtual environment, which is made
# where there is none (or none that works any more).
#
#   sh scripts/install.sh PYTHON VENV REQUIREMENTS [UV]
set -eu

python=$1 venv=$2 requirements=$3 uv=${4:-}

if ! "$venv/bin/python" -c '' 2>/dev/null; then
    command -v "$python" >/dev/null || {
        echo "There is no $python here. Install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3.12" >&2
        exit 1
    }
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "$("$python" --version) is too old: Tenantry needs 3.11 or newer. Name another: make PYTHON=python3.12" >&2
        exit 1
    }
    echo "Making $venv with $("$python" --version)"
    if [ -n "$uv" ]; then
        "$uv" venv --quiet --clear --python "$(command -v "$python")" "$venv"
    else
        "$python" -m venv --clear "$venv" || {
            echo "The venv module of $python does not work; on Debian and Ubuntu: apt-get install python3-venv" >&2
            exit 1
        }
    fi
fi

echo "Installing $requirements into $venv"
# No isolation: the build backend is one of the pinned requirements, so that nothing unpinned is ever fetched.
if [ -n "$uv" ]; then
    "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r "$requirements"
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
    # A virtual environment that uv made has no pip.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip --upgrade >/dev/null
    pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
    pip install --require-hashes -r "$requirements"
    pip install --no-deps --no-build-isolation --no-index --editable .
fi
