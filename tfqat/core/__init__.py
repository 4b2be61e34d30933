"""Numbers on arrays: schemes, fake quantization, encodings. Nothing here knows a model."""
