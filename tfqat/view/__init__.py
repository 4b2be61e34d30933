"""View: what the user's Keras model is made of, seen as a Graph."""
