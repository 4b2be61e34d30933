"""Types: what one value of a spec may be, and the section that values stand in.

They are strict: a number in quotes is a text and refused, and so is ``1`` where true or false is wanted. A whole number
is accepted where a fractional one is expected.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

T = TypeVar("T")


def wrong(expected: str, nearest: str | None = None) -> PydanticCustomError:
    """An error that says what was expected; what was received and where is added by ``report``."""
    context = {"expected": expected} | ({"nearest": nearest} if nearest else {})
    return PydanticCustomError("tfqat", "expected {expected}", context)


def matching(pattern: str, expected: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise wrong(expected)
        return text

    return AfterValidator(check)


def _pair(value: Any) -> Any:
    """An int is a square."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise wrong("each entry once")
    return values


Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=8192)]
Size = Annotated[tuple[Side, Side], Field(strict=False), BeforeValidator(_pair)]
Text = Annotated[str, matching(r"(?s).*\S.*", "a text that is not empty")]
Factor = Annotated[float, Field(gt=0, le=10)]
ClassNames = Annotated[tuple[Text, ...], Field(strict=False, min_length=1), AfterValidator(distinct)]
Share = Annotated[float, Field(ge=0, le=1)]
Function = Annotated[str, matching(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", 'a function as "package.module:function"')]
ModelPath = Annotated[
    str,
    matching(
        r"(?!.*\.(onnx|tflite|pb|pt|pth|ckpt|index|npz|pkl|json|yaml)/?$).*\S.*",
        "the path of a .keras, .h5 or .weights.h5 file, or of a SavedModel folder",
    ),
]
TensorName = Annotated[str, matching(r"[!-+.-9;-~-]+", "an ASCII tensor name without blanks, ':' or ','")]
TensorNames = Annotated[tuple[TensorName, ...], Field(strict=False, min_length=1), AfterValidator(distinct)]


class Section(BaseModel):
    """A mapping of the spec: unknown keys are errors, values are never converted, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
