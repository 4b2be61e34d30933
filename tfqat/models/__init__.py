"""Models: the float Keras models that a spec names, and the reading of model files."""
