#!/bin/sh
# Makes .venv and installs Millrace into it, from this checkout: `scripts/setup.sh engine` to run it,
# `scripts/setup.sh engine,dev` to work on it. $PYTHON names the Python to use; else the first that fits.
set -eu
cd "$(dirname "$0")/.."
extras=$1
torch=${TORCH:-torch==2.13.0}

say() { echo "millrace: $*" >&2; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }

find_python() {
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3 python; do
        if fits "$name"; then
            echo "$name"
            return
        fi
    done
    say "no Python 3.11 to 3.14 found. Install one: 'apt install python3 python3-venv' (Debian 12, Ubuntu 24.04"
    say "or later), 'dnf install python3.12' (Fedora), 'brew install python@3.12' (macOS), or from python.org."
    say "If it has another name or place: 'make demo PYTHON=/path/to/python'."
    return 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "$python has no module to make virtual environments. Install it: 'apt install python$version-venv'."
        return 1
    fi
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input "$@" && return
    say "pip could not install $*; its message is above. To use a mirror or only CPU builds of torch, set"
    say "PIP_INDEX_URL or PIP_EXTRA_INDEX_URL, for example to https://download.pytorch.org/whl/cpu."
    return 1
}

fits .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null || make_venv
say "installing $torch (once). On x86-64 Linux, PyPI's comes with NVIDIA's libraries, 2.7 GB to download;"
say "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu takes the build for processors, 190 MB."
install "$torch"
say "installing millrace[$extras] (once)"
install --editable ".[$extras]"
