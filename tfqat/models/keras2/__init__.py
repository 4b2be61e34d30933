"""Models of Keras 2, read as plain data and made into Keras 3 models."""
