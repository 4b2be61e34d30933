"""ViT: a small vision transformer; patches, learned positions, pre-norm blocks of attention and MLP."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from tfqat.view.custom import quantizable

# Dosovitskiy et al. (arXiv 2010.11929); the width and heads of DeiT-tiny (arXiv 2012.12877), a third of its depth.
WIDTH, HEADS, BLOCKS = 192, 3, 4
# An image of 28 x 28 or 32 x 32 is 16 patches.
PATCHES_A_SIDE = 4


@quantizable
@keras.saving.register_keras_serializable("tfqat")
class AddPositions(layers.Layer):
    """Adds a learned vector to each token: ``x + table``, ``(batch, tokens, width)``."""

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(name="table", shape=tuple(input_shape[1:]), initializer="random_normal")

    def call(self, inputs: Any) -> Any:
        return inputs + self.table

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def vit(
    input_shape: tuple[int, int, int],
    num_classes: int,
    width: int = WIDTH,
    blocks: int = BLOCKS,
    mlp_ratio: int = 2,
    dropout: float = 0.0,
    name: str = "vit",
) -> keras.Model:
    """Images ``input_shape`` -> class probabilities ``(batch, num_classes)``.

    Args:
        input_shape: height and width of at least PATCHES_A_SIDE; what does not fill a patch is cut off.
        num_classes: classes.
        width: of a token; a multiple of HEADS.
        blocks: how many.
        mlp_ratio: width of the MLP's hidden layer, in widths.
        dropout: share of the attention weights and of what each block adds, dropped in training.
        name: the model's name.
    """
    image = keras.Input(input_shape, name="image")
    side = [size // PATCHES_A_SIDE for size in input_shape[:2]]
    x = layers.Conv2D(width, side, side, name="patches")(image)
    x = layers.Reshape((x.shape[1] * x.shape[2], width), name="tokens")(x)
    x = AddPositions(name="positions")(x)
    for index in range(1, blocks + 1):
        x = _block(x, mlp_ratio, dropout, f"block{index}")
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    x = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name=name)


def _block(x: keras.KerasTensor, mlp_ratio: int, dropout: float, name: str) -> keras.KerasTensor:
    """``x += attention(norm(x))``, then ``x += mlp(norm(x))``."""
    width = x.shape[-1]
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(HEADS, width // HEADS, dropout=dropout, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = layers.Dense(mlp_ratio * width, activation="gelu", name=f"{name}_up")(y)
    y = layers.Dense(width, name=f"{name}_down")(y)
    if dropout:
        y = layers.Dropout(dropout, name=f"{name}_dropout")(y)
    return layers.Add(name=f"{name}_add2")([x, y])
