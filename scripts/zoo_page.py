"""Zoo page: docs/zoo.md, the table of what scripts/zoo.py found, and what counts as a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo_models import APPLICATIONS, HUB

QDQ, CACHE = "Q/DQ ONNX", "float ONNX + cache"
Result = Mapping[str, Any]

TEXT = """\
# The zoo

Every model of keras.applications, and backbones of KerasHub built with random weights, for TensorRT: prepared,
calibrated, trained one step, saved, loaded, finalized, exported to Q/DQ ONNX and to float ONNX with a cache, and both
run in onnxruntime and judged against the trained model. Written by `python scripts/zoo.py`, {dates}, with
{versions}.

- *ops*, *quantizers*, *int8 MACs* and *float ops* are those of the placement at the model's own input size (*px*).
  The share is of all multiply-accumulates, the output layers aside.
- *prepare*: seconds at that size, in brackets as a multiple of the time in which Keras builds the float model.
- *Q/DQ ONNX* and *cache*: end-to-end error of the files, on random images of the size *run at*, with what is allowed:
  twice what 3e-7 of noise before each Quantizer does to the trained model itself, at least {floor:g}; and the elements
  that are one step off where each block is fed the trained model's own input, of all elements (0.1 % a block may be).
  A deep network with random weights turns one step into anything, so that what is allowed end to end is wide; the
  judge of the blocks is the sharp one. Where a cache gives a scale to tensors inside blocks, which the training does
  not round (swish, hard-swish, GELU), the blocks are judged without these scales, and the error, with them, has no
  bound.
- *passed*: no problem at any step, both judges hold, the loaded model computes the same bit for bit, the training step
  moved each quantized kernel, and all multiply-accumulates of a model of keras.applications are int8. In KerasHub's
  models a layer that cannot be seen inside counts with its weights.

{table}
{problems}"""

HEADINGS = (
    "model",
    "parameters",
    "px",
    "ops",
    "quantizers",
    "int8 MACs",
    "float ops",
    "prepare",
    "run at",
    "Q/DQ ONNX: error (allowed), steps off",
    "cache: error, steps off",
    "verdict",
)


def page(results: Iterable[Result]) -> str:
    """The whole page; models by family and number of parameters."""
    from tfqat.verification.report import NOISE_FACTOR, NOISE_FLOOR

    results = sorted(results, key=lambda r: (r.get("family") == HUB, r.get("parameters", 0), r["name"]))
    dates = sorted({result["date"] for result in results if "date" in result})
    used = {f"{name} {number}" for result in results for name, number in result["versions"].items()}
    rows = [HEADINGS, ["---"] * len(HEADINGS), *map(_row, results)]
    problems = [f"- {result['name']}: {problem}" for result in results for problem in problems_of(result)]
    return TEXT.format(
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "no run yet",
        versions=", ".join(sorted(used)),
        floor=NOISE_FACTOR * NOISE_FLOOR,
        table="\n".join(f"| {' | '.join(row)} |" for row in rows),
        problems="\n".join(["", "## What failed", "", *problems, ""]) if problems else "",
    )


def problems_of(result: Result, bounds: Mapping[str, float] = {}) -> list[str]:
    """What keeps a model from passing; ``bounds``: step -> the seconds that it may take."""
    found = list(result.get("problems", ()))
    if "error" in result:
        found.insert(0, f"{result.get('step', 'start')}: {result['error'].strip().splitlines()[-1]}")
    elif result["family"] == APPLICATIONS and result["int8_share"] < 1:
        found.append(f"{100 * result['int8_share']:.2f} % of the multiply-accumulates are INT8")
    seconds = result.get("seconds", {})
    return found + [f"{step} took {seconds[step]:.1f} s" for step in bounds if seconds.get(step, 0) > bounds[step]]


def _row(result: Result) -> tuple[str, ...]:
    own = str(result["own_size"]) if result.get("own_size") else ""
    return (
        result["name"],
        f"{result['parameters'] / 1e6:.1f} M" if "parameters" in result else "",
        own,
        *(f"{result[key]:,}" if key in result else "" for key in ("ops", "quantizers")),
        f"{100 * result['int8_share']:.1f} %" if "int8_share" in result else "",
        ", ".join(f"{count} {kind}" for kind, count in result.get("floats", {}).items()),
        _prepare(result.get("seconds", {})),
        f"{result['size']} px, {result['images']} images" if own and "images" in result else "",
        _parity(result, QDQ, allowed=True),
        _parity(result, CACHE),
        "**failed**" if problems_of(result) else "passed",
    )


def _prepare(seconds: Mapping[str, float]) -> str:
    if "prepare" not in seconds:
        return ""
    return f"{seconds['prepare']:.1f} s ({seconds['prepare'] / seconds['build']:.1f}x)"


def _parity(result: Result, name: str, allowed: bool = False) -> str:
    file = result.get("files", {}).get(name)
    if file is None:
        return ""
    limit = f" ({result['allowed']:.1e})" if allowed else ""
    steps = f"{file['differing']:,} of {_short(file['elements'])}"
    return f"{file['error']:.1e}{limit}, {steps}"


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"
