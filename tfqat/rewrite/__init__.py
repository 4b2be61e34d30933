"""Rewriting: a float Keras model made into one that quantizes itself, and back."""
