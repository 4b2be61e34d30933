"""Drawing: found boxes and their labels on an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from PIL import Image, ImageDraw

from tfqat.core.drawing import font_for, write
from tfqat.detection.nms import Detections

# Width of a line, of the image's longer side.
LINE = 1 / 300
# Hues a golden section apart differ, however many there are.
GOLDEN = 0.618034


def drawn(image: Image.Image, found: Detections, names: Sequence[str]) -> Image.Image:
    """A copy of the RGB ``image`` with the boxes, in its pixels, each with its class and score."""
    copy = image.convert("RGB")
    pen, font, width = ImageDraw.Draw(copy), font_for(copy.size), max(round(max(copy.size) * LINE), 1)
    for box, score, label in zip(found.boxes[::-1], found.scores[::-1], found.classes[::-1], strict=True):
        top, left, bottom, right = (float(number) for number in box)
        color = color_of(int(label))
        # A side that lies on the image's edge is drawn inside of it.
        right, bottom = max(min(right, copy.width - 1), left), max(min(bottom, copy.height - 1), top)
        pen.rectangle((left, top, right, bottom), outline=color, width=width)
        write(pen, (left, top), f"{names[int(label)]} {score:.0%}", font, color, copy.size)
    return copy


def color_of(label: int) -> tuple[int, int, int]:
    """RGB of a class."""
    red, green, blue = colorsys.hsv_to_rgb((label * GOLDEN) % 1.0, 0.85, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)
