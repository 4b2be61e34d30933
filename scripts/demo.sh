#!/usr/bin/env bash
# The main job on the embedded digits: train, export a TensorRT cache, verify it. Ends with the stage table.
# Arguments are dotted overrides of the spec: bash scripts/demo.sh training_config.num_epochs=2
set -euo pipefail
source "$(dirname "$0")/environment.sh"

tfqat train --spec specs/digits.yaml "$@"
tfqat export --spec specs/digits.yaml --cache "$@"
tfqat verify --spec specs/digits.yaml "$@"
