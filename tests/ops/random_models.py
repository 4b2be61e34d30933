"""Random model: ops of EXAMPLES put together by chance; the same number gives the same model, weights and images.

Branches, merges, models nested one or two levels deep (functional, Sequential, subclassed), layers called twice,
several inputs and outputs, dictionaries of outputs. As many numbers as there are examples have each example once at
least. Small enough that a few hundred can be built, exported and run in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers

IMAGES = 8
MOST_ELEMENTS, MOST_CHANNELS, MOST_RANK = 1024, 24, 5
# A value beyond this is no honest test of rounding: float32 itself has few digits left.
LARGEST = 1e3
# How often a section is drawn; the others once.
WEIGHT = {"Convolutions": 4, "Dense, embedding and attention": 3, "Activations": 3, "Pooling": 2, "Shape": 2,
          "Arithmetic": 2, "Training only": 0.5, "Recurrent": 0.5, "Own code": 0.5}  # fmt: skip


@dataclass
class _Draft:
    """A model in the making: its tensors, and which of them nobody reads yet."""

    rng: np.random.Generator
    examples: Sequence[Any]
    tensors: list[Any] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)

    def choose(self, items: Iterable[Any], weights: Iterable[float] | None = None) -> Any:
        items = list(items)
        shares = None if weights is None else np.asarray(list(weights), float)
        return items[self.rng.choice(len(items), p=None if shares is None else shares / shares.sum())]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


@dataclass(frozen=True)
class RandomModel:
    """A finished one: the model, images for it by input name, and the names of the ops in it."""

    model: keras.Model
    inputs: dict[str, np.ndarray]
    log: tuple[str, ...]


def random_model(number: int, examples: Sequence[Any]) -> RandomModel:
    """The random model of that number."""
    for attempt in range(20):
        keras.backend.clear_session()
        keras.utils.set_random_seed(1000 * number + attempt)
        made = _draw(number, np.random.default_rng([number, attempt]), examples)
        if _tame(made):
            return made
    raise AssertionError(f"random model {number}: no draw of 20 has values that can be compared")


def _draw(number: int, rng: np.random.Generator, examples: Sequence[Any]) -> RandomModel:
    draft = _Draft(rng, [example for example in examples if example.random and example.onnx])
    given = draft.examples[number % len(draft.examples)]
    inputs = [keras.Input(s, dtype=given.dtype, name=f"input{i}") for i, s in enumerate(given.shapes)]
    _start(draft, given, inputs)
    wanted = len(draft.log) + rng.integers(2, 10)
    for _ in range(60):
        if len(draft.log) < wanted:
            _grow(draft)
    model = keras.Model(inputs, _outputs(draft), name="random_model")
    _scatter_weights(model, rng)
    return RandomModel(model, {x.name: _images(x, model, rng) for x in inputs}, tuple(draft.log))


def _start(draft: _Draft, given: Any, inputs: Sequence[Any]) -> None:
    """The given op on the inputs, and around it layers that every target quantizes."""
    if given.first:
        results = keras.tree.flatten(given.make()(*inputs))
        draft.tensors = [_quantized(x) for x in results]
    else:
        draft.tensors = [_quantized(x) for x in inputs]
        _apply(draft, given, list(draft.tensors))
    draft.log.append(given.name)


def _quantized(x: Any) -> Any:
    """A layer that every target quantizes, with as many channels as there were."""
    channels = x.shape[-1]
    x = layers.Conv2D(channels, 3, padding="same")(x) if len(x.shape) == 4 else layers.Dense(channels)(x)
    return layers.ReLU()(x)


def _grow(draft: _Draft) -> None:
    """One more op, if the one that is drawn fits the tensors at hand and gives something small."""
    sections = list(dict.fromkeys(example.section for example in draft.examples if not example.first))
    section = draft.choose(sections, [WEIGHT.get(name, 1) for name in sections])
    example = draft.choose([e for e in draft.examples if e.section == section and not e.first])
    taken = _take(draft, example)
    if taken is not None:
        how = _apply(draft, example, taken)
        draft.log += [] if how is None else [example.name + how]


def _apply(draft: _Draft, example: Any, taken: list[Any]) -> str | None:
    """Adds what the op makes of these tensors, and says how it was called; None where that would be too large."""
    call, how = _wrapped(draft, example, taken)
    results = keras.tree.flatten(call(*taken))
    again = _take_alike(draft, taken) if draft.chance(0.15) else None
    if again is not None:
        results += keras.tree.flatten(call(*again))
        how += ", twice"
    if not all(_is_small(x) for x in results):
        return None
    draft.read.update(id(x) for x in [*taken, *(again or ())])
    draft.tensors += results
    return how


def _take(draft: _Draft, example: Any) -> list[Any] | None:
    """Tensors that the op can read, the latest ones more often."""
    for _ in range(8):
        ages = np.arange(1, len(draft.tensors) + 1) ** 2
        taken = [draft.choose(draft.tensors, ages) for _ in example.shapes]
        if example.fits(*(tuple(x.shape[1:]) for x in taken)):
            return taken
    return None


def _take_alike(draft: _Draft, taken: Sequence[Any]) -> list[Any] | None:
    """Other tensors of the same shapes."""
    alike = [[x for x in draft.tensors if x.shape == own.shape and x is not own] for own in taken]
    return [draft.choose(group) for group in alike] if all(alike) else None


def _wrapped(draft: _Draft, example: Any, taken: Sequence[Any]) -> tuple[Any, str]:
    """What to call: the op, or a model around it, one or two levels deep."""
    call, how = example.make(), ""
    for level in range(draft.choose([0, 1, 2], [8, 1, 1])):
        kind = draft.choose(_NESTED)
        call = _unlisted(_NESTED[kind](call, taken, f"nested{len(draft.log)}_{level}"), len(taken))
        how += f", in a {kind} model"
    return call, how


def _functional(call: Any, taken: Sequence[Any], name: str) -> keras.Model:
    inner = [keras.Input(x.shape[1:], dtype=x.dtype) for x in taken]
    return keras.Model(inner, call(*inner), name=name)


def _sequential(call: Any, taken: Sequence[Any], name: str) -> keras.Model:
    """A Sequential model where the op is a layer of one input, else a functional one."""
    if len(taken) > 1 or not isinstance(call, layers.Layer):
        return _functional(call, taken, name)
    return keras.Sequential([keras.Input(taken[0].shape[1:], dtype=taken[0].dtype), call], name=name)


class Around(keras.Model):
    """A subclassed model that calls one layer."""

    def __init__(self, inner: Any, name: str) -> None:
        super().__init__(name=name)
        self.inner = inner

    def call(self, inputs: Any) -> Any:
        return self.inner(inputs)


def _subclassed(call: Any, taken: Sequence[Any], name: str) -> keras.Model:
    """A subclassed model around a layer of its own, which what is no layer first becomes."""
    alone = len(taken) == 1 and isinstance(call, layers.Layer)
    return Around(call if alone else _functional(call, taken, f"{name}_inner"), name)


# Kind of model -> what puts one around an op.
_NESTED: dict[str, Callable[[Any, Sequence[Any], str], keras.Model]] = {
    "functional": _functional,
    "Sequential": _sequential,
    "subclassed": _subclassed,
}


def _unlisted(model: keras.Model, count: int) -> Any:
    """What calls the model on ``count`` tensors."""
    return model if count == 1 else lambda *tensors: model(list(tensors))


def _is_small(x: Any) -> bool:
    sizes = tuple(x.shape[1:])
    known = all(isinstance(size, int) and size > 0 for size in sizes) and x.shape[0] is None
    # tf2onnx takes the Transpose of an image of one row or column and one channel for a Reshape, and then reduces
    # along a wrong axis; onnx.checker finds it, so export fails aloud.
    thin = len(sizes) == 3 and sizes[2] == 1 and 1 in sizes[:2]
    return (
        known
        and not thin
        and 1 <= len(sizes) < MOST_RANK
        and int(np.prod(sizes)) <= MOST_ELEMENTS
        and sizes[-1] <= MOST_CHANNELS
        and "float" in keras.backend.standardize_dtype(x.dtype)
    )


def _outputs(draft: _Draft) -> Any:
    """Up to three of the tensors that nobody reads; most end in a Dense layer, as classifiers do."""
    ends = [x for x in draft.tensors if id(x) not in draft.read][-3:]
    outputs = [layers.Dense(3)(layers.Flatten()(x)) if draft.chance(0.6) else x for x in ends]
    return {f"end{i}": x for i, x in enumerate(outputs)} if draft.chance(0.2) else outputs


def _scatter_weights(model: keras.Model, rng: np.random.Generator) -> None:
    """Numbers in place of the zeros and ones that layers start with."""
    draw = {
        "bias": lambda shape: rng.normal(0, 0.3, shape),
        "beta": lambda shape: rng.normal(0, 0.3, shape),
        "gamma": lambda shape: rng.choice([-1, 1], shape) * rng.uniform(0.5, 1.5, shape),
        "moving_mean": lambda shape: rng.normal(0, 0.3, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 2, shape),
        "alpha": lambda shape: rng.uniform(0, 0.4, shape),
    }
    for variable in model.weights:
        if variable.name in draw:
            variable.assign(draw[variable.name](tuple(variable.shape)).astype("float32"))


def _images(x: Any, model: keras.Model, rng: np.random.Generator) -> np.ndarray:
    shape = (IMAGES, *x.shape[1:])
    if x.dtype == "int32":
        return rng.integers(0, 8, shape).astype("int32")  # as many as examples.TOKENS
    photos = any(isinstance(layer, layers.Rescaling) for layer in model.layers)
    return (rng.uniform(0, 255, shape) if photos else rng.normal(0, 1, shape)).astype("float32")


def _tame(made: RandomModel) -> bool:
    outputs = keras.tree.flatten(made.model(list(made.inputs.values()), training=False))
    values = [np.asarray(x) for x in outputs]
    return bool(values) and all(np.isfinite(v).all() and np.abs(v).max() < LARGEST for v in values)
