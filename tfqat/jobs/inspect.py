"""Inspect: prints the placement of the model that a spec describes, without training anything."""

from __future__ import annotations

import tfqat
from tfqat.jobs import tfmot_spec
from tfqat.spec import Spec


def inspect(spec: Spec, trust: bool = False) -> None:
    """Builds the float model and prints what would be quantized in it, and why each other op would not.

    ``trust`` lets Python code in a checkpoint run (Lambda layers).

    Raises:
        TfqatError: the model cannot be built, or a rule matches nothing in it.
    """
    plan = spec.quantization
    rules = [rule.model_dump(exclude_none=True) for rule in plan.rules]
    if tfmot := tfmot_spec.tfmot_of(spec):
        print(tfmot_spec.planned(tfmot, spec))
        return
    model = tfqat.build_model(spec, trust)
    print(tfqat.placement(model, plan.target, rules, plan.relu6, plan.activation))
