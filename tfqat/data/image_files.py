"""Image files: the images below a folder, which nobody has labeled."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from tfqat.data.encoded_image import READABLE, UNREADABLE, decode, reason
from tfqat.errors import TfqatError

NAMED_IN_ERRORS = 10


@dataclass(frozen=True)
class Prepared:
    """One image as a model takes it.

    Attributes:
        image: ``(height, width, channels)`` float32.
        size: height and width of the image file.
        scale: how many pixels of ``image`` one of the file is, downwards and across.
    """

    image: tf.Tensor
    size: tuple[int, int]
    scale: tuple[float, float]


# RGB uint8 ``(height, width, 3)`` -> what the model takes of it.
Prepare = Callable[[tf.Tensor], Prepared]


def listed(path: Path) -> list[Path]:
    """The image itself, or all images below a folder, by name.

    Raises:
        TfqatError: there is none, or no such path.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise TfqatError(f"{path}: there is no such file or folder.")
    found = [Path(root, file) for root, _, files in os.walk(path) for file in files]
    images = sorted(file for file in found if file.suffix.lower() in READABLE | UNREADABLE and file.name[0] != ".")
    if not images:
        raise TfqatError(f"{path}: has no images ({', '.join(sorted(READABLE))}), nor have the folders below it.")
    return images


def check_decodable(files: Sequence[Path]) -> None:
    """Raises TfqatError with those that cannot be decoded, where there are any."""
    if faults := faults_of([str(file) for file in files]):
        raise TfqatError(undecodable(faults, "Repair or remove them."))


def faults_of(files: Sequence[str]) -> dict[str, str]:
    """File -> why it cannot be decoded, of those that cannot, judged by the decoder that models' inputs come from."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return {file: fault for file, fault in zip(files, pool.map(_fault, files), strict=True) if fault}


def undecodable(faults: Mapping[str, str], mend: str) -> str:
    """The message that names ``faults``, and at its end how to ``mend`` them."""
    named = [f"  {file}: {fault}" for file, fault in list(faults.items())[:NAMED_IN_ERRORS]]
    more = [f"  and {len(faults) - len(named)} more"] if len(faults) > len(named) else []
    head = f"{len(faults)} image{'s' if len(faults) > 1 else ''} cannot be decoded:"
    return "\n".join([head, *named, *more, mend])


def read(file: Path, prepare: Prepare) -> Prepared:
    """The image in ``file`` as the model takes it."""
    return prepare(pixels(file))


def pixels(file: Path) -> tf.Tensor:
    """RGB uint8, as models' inputs are made of: 16 bits scaled to 8, an EXIF orientation not followed."""
    return decode(tf.io.read_file(str(file)))


def _fault(file: str) -> str:
    if Path(file).suffix.lower() in UNREADABLE:
        return f"format not supported (use {', '.join(sorted(READABLE))})"
    try:
        decode(tf.io.read_file(file))
    except tf.errors.OpError as error:
        return reason(error) or "no image"
    return ""
