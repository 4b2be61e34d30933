"""Cause: why ops of a kind have no int8 form on any device here; a device's own causes are in its Target."""

from __future__ import annotations

from collections.abc import Mapping

_CURVE = "its curve is computed from several parts, which no integer kernel does in one"
_OWN_DIVISOR = "it divides by a number that each image has of its own"
_STEPS = "its state goes from step to step, and each rounding of it would go along"
_SUMS = "exponentials and their sum need more than 8 bits"
CONSTANT = "depends on no input of the model: the files hold what it gives"
PRODUCT_WITH_CONSTANT = "a product with a constant, whose scale nobody learns: make it the kernel of a Dense"
_UNARY = "no device here has an integer table for it"

CAUSES: Mapping[str, str] = {
    **dict.fromkeys("lstm gru simple_rnn rnn bidirectional conv_lstm1d conv_lstm2d conv_lstm3d".split(), _STEPS),
    "time_distributed": "its number of steps is open: give the Input a fixed one",
    **dict.fromkeys(
        "layer_normalization rms_normalization group_normalization unit_normalization normalize layer_norm".split(),
        _OWN_DIVISOR,
    ),
    **dict.fromkeys("softmax masked_softmax log_softmax sparsemax logsumexp log_sigmoid".split(), _SUMS),
    **dict.fromkeys(
        "tanh_shrink soft_shrink hard_shrink squareplus sparse_plus sparse_sigmoid glu threshold".split(), _CURVE
    ),
    **dict.fromkeys(
        "exponential expm1 log log1p log2 sqrt rsqrt reciprocal sin cos tan erf floor ceil round sign power "
        "power_constant".split(),
        _UNARY,
    ),
    **dict.fromkeys(
        ("embedding", "reversible_embedding"), "rows of a table are looked up in float; what reads them quantizes them"
    ),
    "tied_projection": "its kernel is the table of the embedding, which is looked up in float",
    **dict.fromkeys(
        "auto_contrast equalization contrast_limited_adaptive_histogram_equalization".split(),
        "it spreads the values of each image by that image's own",
    ),
    **dict.fromkeys(
        "category_encoding discretization hashing hashed_crossing integer_lookup string_lookup "
        "text_vectorization".split(),
        "it makes numbers of categories, for the layers behind it",
    ),
    **dict.fromkeys(("mel_spectrogram", "stft_spectrogram"), "a Fourier transform needs more than 8 bits"),
    "masking": "it looks for steps of one value, which rounding might miss",
    **dict.fromkeys(
        "flax_layer jax_layer tfsm_layer torch_module_wrapper".split(),
        "a program of another framework, not looked into",
    ),
    "lambda": "its code is not looked into: write it with keras.ops in the model, or as a layer of your own",
    "pipeline": "its layers are not looked into: put them into the model one by one",
    "weight": "numbers that the model holds; what reads them quantizes them",
    "spectral_normalization": "its kernel is divided by a norm that training moves along",
}
