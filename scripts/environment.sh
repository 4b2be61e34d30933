# Sourced by the other scripts: goes to the repository root and makes sure that .venv holds what setup.cfg asks for.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3 python; do
        if supported "$name" && "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.11, 3.12 or 3.13 with the module venv found. Install one, so that for example 'python3.12'" >&2
    echo "starts it (on Debian and Ubuntu: the packages python3.12 and python3.12-venv)." >&2
    return 1
}

make_venv() {
    local python
    if [ -e .venv/bin/python ] && ! supported .venv/bin/python; then
        echo ".venv has no working Python 3.11 to 3.13. Remove it (rm -r .venv) and start again." >&2
        return 1
    fi
    # A venv whose making was broken off has no pip yet; making it again completes it.
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        python=$(find_python) || return 1
        "$python" -m venv .venv || return 1
    fi
}

install() {
    # An editable install names this folder, so a tree that was moved is installed again.
    local wanted
    wanted="$(cat setup.cfg pyproject.toml | cksum) $PWD"
    if [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
        echo "Installing tfqat and what it needs into .venv (minutes, once)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' || return 1
        echo "$wanted" >.venv/installed
    fi
}

make_venv && install || exit 1
export PATH="$PWD/.venv/bin:$PATH"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
