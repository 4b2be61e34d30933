"""Drawing: a text on an image."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

# Height of a text, of the image's longer side.
TEXT, SMALLEST = 1 / 45, 10
GROUND = (40, 40, 40)


def font_for(size: tuple[int, int]) -> Any:
    """A font that can be read on an image of that size."""
    return ImageFont.load_default(max(round(max(size) * TEXT), SMALLEST))


def titled(image: Image.Image, text: str) -> Image.Image:
    """An RGB copy of the image with the text in its upper left corner."""
    copy = image.convert("RGB")
    write(ImageDraw.Draw(copy), (0, 0), text, font_for(copy.size), GROUND, copy.size)
    return copy


def write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    text: str,
    font: Any,
    color: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    """The text on a ground of ``color``: above the corner where there is room, and inside the image of ``size``."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    wide, high = right - left + 4, bottom - top + 4
    x = min(max(corner[0], 0), max(size[0] - wide, 0))
    y = corner[1] - high if corner[1] >= high else corner[1]
    pen.rectangle((x, y, x + wide, y + high), fill=color)
    pen.text((x + 2 - left, y + 2 - top), text, fill="white", font=font)
