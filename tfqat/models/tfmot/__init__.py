"""Models that TensorFlow Model Optimization (TFMOT) trained, read without it: config, weights, learned ranges."""
