"""Hdf5: an HDF5 file opened for reading, after a look at what its links and declared sizes would do to us."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import ml_dtypes
import numpy as np

from tfqat.errors import TfqatError

SUFFIXES = (".h5", ".hdf5")
# Deflate, the densest filter that HDF5 files carry, shrinks data at most 1032 times.
_DENSEST = 1100
# Below this, a declared size harms nobody.
_HARMLESS = 2**20
# The state of an optimizer, at the root of the file, is never read, so that damage there does not matter.
_NOT_READ = frozenset({"optimizer_weights", "optimizer"})


@contextmanager
def open_hdf5(file: Path | BinaryIO, source: str) -> Iterator[h5py.File]:
    """The file, read-only, its weights' links and sizes checked.

    Raises:
        TfqatError: it is damaged, refers to other files, or declares more data than it holds.
    """
    try:
        with h5py.File(file, "r") as opened:
            _check(opened, source, set())
            yield opened
    except (OSError, KeyError, RuntimeError) as error:
        raise TfqatError(
            f"{source} cannot be read: {error}. It is damaged or cut off; save the model again."
        ) from error


def array_of(item: h5py.Dataset) -> np.ndarray:
    """The values; those of bfloat16, a type that HDF5 has not, are stored as two bytes each."""
    values = np.asarray(item)
    return values.view(ml_dtypes.bfloat16) if values.dtype == np.dtype("V2") else values


def item_of(group: h5py.Group, name: str, source: str) -> h5py.Dataset | h5py.Group:
    """The item that the file names: one inside the group, and of what was checked.

    Raises:
        TfqatError: the name leads elsewhere.
    """
    first = next((part for part in name.split("/") if part not in ("", ".")), "")
    if name.startswith("/") or _is_skipped(group, first):
        raise TfqatError(
            f"{source}: {group.name} names {name!r} as its own, which lies outside of it; Keras writes no such names. "
            "It was not read. Save the model again."
        )
    return group[name]


def values_stored(group: h5py.Group) -> int:
    """How many numbers the group and what is in it declare, the optimizer's aside."""
    total = 0
    for name in group:
        item = None if _is_skipped(group, name) else group[name]
        if isinstance(item, h5py.Dataset):
            total += int(item.size or 0)
        elif item is not None:
            total += values_stored(item)
    return total


def _is_skipped(group: h5py.Group, name: str) -> bool:
    return group.name == "/" and name in _NOT_READ


def _check(group: h5py.Group, source: str, seen: set[int]) -> None:
    for name in group:
        if _is_skipped(group, name):
            continue
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            where = getattr(link, "filename", None)
            raise TfqatError(
                f"{source}: {group.name.rstrip('/')}/{name} is a link to {where or 'another place'}, not data; Keras "
                "writes none. Nothing was read. Save the model again."
            )
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if isinstance(item, h5py.Dataset):
            _check_dataset(item, source)
        elif address not in seen:
            _check(item, source, seen | {address})


def _check_dataset(item: h5py.Dataset, source: str) -> None:
    if item.is_virtual or item.external:
        raise TfqatError(
            f"{source}: {item.name} takes its values from other files, not from this one; Keras writes no such data. "
            "Nothing was read. Save the model again."
        )
    stored = item.id.get_storage_size()
    if item.nbytes > _HARMLESS + _DENSEST * stored:
        raise TfqatError(
            f"{source}: {item.name} declares the shape {item.shape}, {item.nbytes:,} bytes, and holds {stored:,}. The "
            "file is damaged or made to exhaust memory; nothing was read."
        )
