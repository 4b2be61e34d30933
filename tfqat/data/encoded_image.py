"""Encoded image: the bytes of a JPEG, PNG, BMP or GIF, and how they become pixels."""

from __future__ import annotations

import re

import tensorflow as tf

READABLE = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}
# Images, but of formats that tf.io.decode_image cannot read: named in an error, never passed over.
UNREADABLE = {".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm"}


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """RGB uint8; of an animated GIF the first frame; gray, palette and alpha images become RGB."""
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def reason(error: tf.errors.OpError) -> str:
    """Why an image cannot be decoded, without TensorFlow's names."""
    # "{{function_node ...}} the reason [Op:DecodeImage] name: "
    return re.sub(r"^\{\{.*?\}\}\s*|\.?\s*\[Op:.*$", "", error.message.split("\n")[0])
