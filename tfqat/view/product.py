"""Product: a contraction of two tensors, as the batched matrix product that it amounts to.

Each letter of an equation ``left,right->output`` is one axis. Those in all three terms number the matrices (the batch
first), those in left and output are rows, those in right and output columns, and those in left and right alone are
summed over: ``matmul((batch, rows, summed), (batch, summed, columns))``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Product:
    """An equation with a letter for each axis, and the sizes of the axes."""

    left: str
    right: str
    output: str
    sizes: dict[str, int | None]

    @property
    def batch(self) -> str:
        return "".join(letter for letter in self.output if letter in self.left and letter in self.right)

    @property
    def rows(self) -> str:
        return "".join(letter for letter in self.output if letter not in self.right)

    @property
    def columns(self) -> str:
        return "".join(letter for letter in self.output if letter not in self.left)

    @property
    def summed(self) -> str:
        return "".join(letter for letter in self.left if letter in self.right and letter not in self.output)

    @property
    def turned(self) -> Product:
        """The same with left and right exchanged."""
        return replace(self, left=self.right, right=self.left)

    def shape(self, letters: str) -> Shape:
        """The sizes of these axes."""
        return tuple(self.sizes[letter] for letter in letters)

    def merged(self, letters: str) -> int | None:
        """The size of these axes as one; None where it is unknown."""
        sizes = self.shape(letters)
        return None if None in sizes else prod(size or 1 for size in sizes)


def product_of(equation: str, left: Shape, right: Shape) -> Product | str:
    """The equation of two tensors of these shapes as a Product; or why it is no batched matrix product."""
    terms = _terms(equation, len(left), len(right))
    sizes: dict[str, int | None] = {}
    for letter, size in (*zip(terms[0], left, strict=True), *zip(terms[1], right, strict=True)):
        known = sizes.setdefault(letter, size)
        if known is None:
            sizes[letter] = size
        elif size not in (None, known):
            return f"{equation!r} repeats an axis of size 1 over one of another size"
    return _checked(Product(*terms, sizes), equation)


def _terms(equation: str, *ranks: int) -> tuple[str, str, str]:
    """Left, right and output, with a digit for each axis that an ellipsis stands for."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    given = inputs.split(",")
    counts = [rank - len(term.replace("...", "")) for term, rank in zip(given, ranks, strict=True)]
    digits = "".join(map(str, range(max(0, *counts))))
    if not arrow:
        letters = sorted(set(inputs) - set(",."))
        output = ("..." if "..." in inputs else "") + "".join(x for x in letters if inputs.count(x) == 1)
    left, right = (
        term.replace("...", digits[len(digits) - count :]) for term, count in zip(given, counts, strict=True)
    )
    return left, right, output.replace("...", digits)


def _checked(found: Product, equation: str) -> Product | str:
    for letters in (found.left, found.right, found.output):
        if len(set(letters)) != len(letters):
            return f"{equation!r} has a letter twice in one term, so it is no matrix product"
    alone = set(found.left) ^ set(found.right)
    if alone - set(found.output) or set(found.output) - set(found.left + found.right):
        return f"{equation!r} sums over an axis of one term alone, so it is no matrix product"
    if not found.summed:
        return f"{equation!r} sums over nothing, so it is no matrix product"
    if not found.left[:1] == found.right[:1] == found.output[:1]:
        return f"{equation!r} does not keep the batch apart as the first axis of each term"
    if any(_unknown(found, *groups) for groups in ((found.rows, found.summed), (found.summed, found.columns))):
        return f"{equation!r} merges axes of unknown size: at most one may be None besides the batch"
    if len(found.rows) * len(found.columns) != 1 and found.shape(found.output[1:]).count(None) > 1:
        return f"{equation!r} parts axes of unknown size: at most one may be None besides the batch"
    return found


def _unknown(found: Product, *groups: str) -> bool:
    """Whether a reshape that merges each group to one axis would have to guess more than one size."""
    sizes = [*found.shape(found.batch[1:]), *map(found.merged, groups)]
    return any(len(group) != 1 for group in groups) and sizes.count(None) > 1


def equation_of_dot(axes: int | Sequence[int], left: Shape, right: Shape) -> str:
    """The equation of ``keras.layers.Dot``: axis 0 of both is the batch."""
    first, second = (axes, axes) if isinstance(axes, int) else axes
    one, other = _letters(len(left), 0), _letters(len(right), len(left))
    other = one[0] + other[1:]
    summed = other[second]
    one = one.replace(one[first], summed)
    return f"{one},{other}->{one.replace(summed, '')}{other[1:].replace(summed, '')}"


def equation_of_tensordot(axes: int | Sequence[int | Sequence[int]], left: Shape, right: Shape) -> str:
    """The equation of ``keras.ops.tensordot``."""
    if isinstance(axes, int):
        axes = (range(len(left) - axes, len(left)), range(axes))
    one, other = _letters(len(left), 0), _letters(len(right), len(left))
    pairs = zip(*((side,) if isinstance(side, int) else side for side in axes), strict=True)
    shared = {one[first]: other[second] for first, second in pairs}
    one = "".join(shared.get(letter, letter) for letter in one)
    kept = "".join(letter for letter in one + other if (one + other).count(letter) == 1)
    return f"{one},{other}->{kept}"


def _letters(count: int, start: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[start : start + count]
