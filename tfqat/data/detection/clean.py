"""Clean: the Examples of a reader with what cannot be used taken out, and a Report of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from tfqat.data.detection.example import ClassMap, Example
from tfqat.data.detection.report import CLIPPED, DROPPED, KEPT, LEFT_OUT, TOLD, Finding, Report, refuse
from tfqat.data.encoded_image import decode, reason

Track = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Choices:
    """What is done with what can be read in more than one way.

    Attributes:
        crowd: boxes around many objects.
        degenerate: boxes whose height or width is not above 0. Kept ones stay as they are.
        outside: boxes that reach outside the image; one that lies outside altogether is dropped in any case.
        strict: refuse data in which anything would be left out, dropped or changed unasked.
    """

    crowd: Literal["keep", "drop"] = "keep"
    degenerate: Literal["drop", "keep"] = "drop"
    outside: Literal["clip", "drop"] = "clip"
    strict: bool = False


USUAL = Choices()


@dataclass(frozen=True, eq=False)
class Reading:
    """What a split holds, and how it was found."""

    examples: tuple[Example, ...]
    class_map: ClassMap
    report: Report


def cleaned(
    source: str,
    examples: Sequence[Example],
    class_map: ClassMap,
    findings: Sequence[Finding],
    choices: Choices,
    track: Track = lambda items, _: items,
) -> Reading:
    """Decodes every image once, so that a corrupt one is found now and not hours into training, and checks each box
    against the image's own size.

    Args:
        source: the split, as messages name it.
        findings: of the reader itself; they come first in the report.
        track: wraps the loop over the images, given their number: a progress bar.

    Raises:
        TfqatError: ``choices.strict``, and there is anything to find; the message names all of it.
    """
    found, kept = list(findings), []
    with closing(_checked(examples)) as checked:
        for example, fault, size in track(checked, len(examples)):
            if fault:
                found.append(Finding("broken_image", example.name, fault, LEFT_OUT))
                continue
            sized, met = _sized(example, size)
            boxed, more = _boxed(sized, choices)
            found += met + more
            kept.append(boxed)
    found += _of_the_split(source, kept)
    if choices.strict:
        refuse(source, found)
    counts = [len(example.boxes) for example in kept]
    return Reading(tuple(kept), class_map, Report(source, len(kept), sum(counts), counts.count(0), tuple(found)))


def _checked(examples: Sequence[Example]) -> Generator[tuple[Example, str, tuple[int, int]]]:
    """Example, why its image cannot be decoded (else an empty text), and the image's size."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        for example, (fault, size) in zip(examples, pool.map(_fault_and_size, examples), strict=True):
            yield example, fault, size
    finally:  # not `with`, which after Ctrl-C would first decode all that is left
        pool.shutdown(cancel_futures=True)


def _fault_and_size(example: Example) -> tuple[str, tuple[int, int]]:
    try:
        height, width, _ = decode(tf.constant(example.image.read())).shape
    except tf.errors.OpError as error:
        return reason(error) or "no image", (0, 0)
    except OSError as error:
        return str(error), (0, 0)
    return "", (height, width)


def _sized(example: Example, size: tuple[int, int]) -> tuple[Example, list[Finding]]:
    """The example with its image's own size; an annotated size of 0 says nothing."""
    annotated = example.height, example.width
    sized = replace(example, height=size[0], width=size[1])
    if annotated == size or 0 in annotated:
        return sized, []
    detail = f"annotated {annotated[1]} x {annotated[0]}, received {size[1]} x {size[0]} (width x height)"
    return sized, [Finding("other_size", example.name, detail, "the image's own size counts")]


def _boxed(example: Example, choices: Choices) -> tuple[Example, list[Finding]]:
    """The example with the boxes that stay. Each box has at most one finding, so that counts add up."""
    found: list[Finding] = []
    boxes, areas, keep = example.boxes.copy(), example.areas.copy(), np.ones(len(example.boxes), bool)
    limits = np.array([example.height, example.width] * 2, np.float32)

    def told(kind: str, row: int, done: str) -> None:
        corners = " ".join(f"{value:g}" for value in example.boxes[row])
        found.append(Finding(kind, example.name, f"box {row + 1}, ymin xmin ymax xmax {corners}", done))
        keep[row] = done != DROPPED

    for row, box in enumerate(example.boxes):
        clipped = np.clip(box, 0, limits)
        if example.crowd[row] and choices.crowd == "drop":
            told("crowd", row, DROPPED)
        elif not np.isfinite([*box, areas[row]]).all():
            told("not_finite", row, DROPPED)
        elif _flat(box):
            told("no_area", row, KEPT if choices.degenerate == "keep" else DROPPED)
        elif (clipped != box).any():
            told("outside", row, DROPPED if choices.outside == "drop" or _flat(clipped) else CLIPPED)
            boxes[row] = clipped
            areas[row] = min(areas[row], (clipped[2] - clipped[0]) * (clipped[3] - clipped[1]))
    rest = replace(
        example,
        boxes=boxes[keep],
        classes=example.classes[keep],
        crowd=example.crowd[keep],
        areas=areas[keep],
    )
    return rest, found


def _flat(box: np.ndarray) -> bool:
    return bool(box[2] <= box[0] or box[3] <= box[1])


def _of_the_split(source: str, kept: Sequence[Example]) -> list[Finding]:
    if not kept:
        return [Finding("empty_split", source, "nothing is left to train on or to measure", TOLD)]
    if not any(len(example.boxes) for example in kept):
        return [Finding("no_boxes", source, f"{len(kept)} images, all of them background", TOLD)]
    return []
