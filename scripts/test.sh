#!/usr/bin/env bash
# All checks and tests. Arguments go to pytest: bash scripts/test.sh tests/spec -k override
set -euo pipefail
source "$(dirname "$0")/environment.sh"

ruff check .
ruff format --check .
mypy
lint-imports
pytest -n 2 "$@"
