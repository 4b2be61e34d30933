"""Product: equations of two tensors against numpy's einsum, and the reasons of those that are no matrix product."""

import numpy as np
import pytest

from tfqat.view.product import Product, equation_of_dot, equation_of_tensordot, product_of

SCORES = ("aecd,abcd->acbe", (2, 5, 3, 4), (2, 6, 3, 4))
EQUATIONS = {
    "scores of an attention": SCORES,
    "context of an attention": ("acbe,aecd->abcd", (2, 3, 6, 5), (2, 5, 3, 4)),
    "two axes summed": ("bxyc,bxycd->bd", (2, 3, 4, 5), (2, 3, 4, 5, 6)),
    "two axes of rows": ("bxyc,bkc->bxyk", (2, 3, 4, 5), (2, 6, 5)),
    "vectors": ("bc,bc->b", (2, 5), (2, 5)),
    "ellipsis": ("...qc,...kc->...qk", (2, 3, 6, 4), (2, 3, 5, 4)),
}


def computed(found: Product, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The product as hardware has it: (batch, rows, summed) times (batch, summed, columns)."""
    sides = []
    for letters, values, groups in (
        (found.left, left, (found.rows, found.summed)),
        (found.right, right, (found.summed, found.columns)),
    ):
        order = [letters.index(letter) for letter in found.batch + "".join(groups)]
        sides.append(values.transpose(order).reshape(*found.shape(found.batch), *map(found.merged, groups)))
    made = found.batch + found.rows + found.columns
    result = np.matmul(*sides).reshape(found.shape(made))
    return result.transpose([made.index(letter) for letter in found.output])


@pytest.mark.parametrize(("equation", "left", "right"), EQUATIONS.values(), ids=EQUATIONS)
def test_is_numpys_einsum(equation, left, right):
    rng = np.random.default_rng(0)
    values = rng.normal(size=left), rng.normal(size=right)
    found = product_of(equation, left, right)
    assert isinstance(found, Product), found
    np.testing.assert_allclose(computed(found, *values), np.einsum(equation, *values), rtol=1e-12, atol=1e-12)


NO_PRODUCTS = {
    "a diagonal": ("bii,bij->bj", (2, 3, 3), (2, 3, 4), "a letter twice"),
    "a sum over one": ("bij,bjk->bk", (2, 3, 4), (2, 4, 5), "of one term alone"),
    "outer": ("bi,bj->bij", (2, 3), (2, 4), "sums over nothing"),
    "the batch summed": ("bi,bj->ij", (2, 3), (2, 4), "does not keep the batch apart"),
    "no batch": ("bij,jk->bik", (2, 3, 4), (4, 5), "does not keep the batch apart"),
    "stretched": ("bij,bjk->bik", (2, 3, 4), (2, 1, 5), "repeats an axis of size 1"),
    "unknown sizes": ("bxyc,bkc->bxyk", (None, None, None, 5), (None, 6, 5), "parts axes of unknown size"),
    "unknown sums": ("btxyc,btxyd->btcd", (2, None, None, 3, 4), (2, None, None, 3, 5), "merges axes of unknown size"),
}


@pytest.mark.parametrize(("equation", "left", "right", "reason"), NO_PRODUCTS.values(), ids=NO_PRODUCTS)
def test_says_why_it_is_none(equation, left, right, reason):
    assert reason in product_of(equation, left, right)


def test_an_output_that_is_not_given_is_that_of_numpy():
    found = product_of("bij,bjk", (2, 3, 4), (2, 4, 5))
    assert "of one term alone" in found or "batch" in found  # numpy sums over the batch, too: 'ik'
    assert product_of("...ij,...jk", (2, 3, 4), (2, 4, 5)).output == "0ik"


def test_one_unknown_size_can_be_merged():
    found = product_of("btnd,bsnd->bnts", (None, None, 2, 4), (None, None, 2, 4))
    assert (found.batch, found.rows, found.columns, found.summed) == ("bn", "t", "s", "d")


DOTS = {
    "last axes": (-1 % 3, -1 % 3, (2, 3, 4), (2, 5, 4)),
    "inner axes": (1, 2, (2, 3, 4), (2, 5, 3)),
    "vectors": (1, 1, (2, 4), (2, 4)),
    "four axes": (3, 1, (2, 3, 5, 4), (2, 4, 6)),
}


@pytest.mark.parametrize(("first", "second", "left", "right"), DOTS.values(), ids=DOTS)
def test_the_equation_of_a_dot(first, second, left, right):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=left), rng.normal(size=right)
    each = [np.tensordot(a, b, axes=(first - 1, second - 1)) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(np.einsum(equation_of_dot((first, second), left, right), one, other), each)


@pytest.mark.parametrize("axes", [1, 2, ((0, 2), (1, 0)), (1, 1)], ids=str)
def test_the_equation_of_a_tensordot(axes):
    left, right = {1: ((2, 3), (3, 4)), 2: ((2, 3, 4), (3, 4, 5))}.get(axes, ((3, 4, 5), (5, 3)))
    if axes == (1, 1):
        left, right = (3, 4, 5), (6, 4)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=left), rng.normal(size=right)
    expected = np.tensordot(one, other, axes=axes)
    np.testing.assert_allclose(np.einsum(equation_of_tensordot(axes, left, right), one, other), expected)
