"""Analysis: what quantization costs a model, block by block, and why."""
