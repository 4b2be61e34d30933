"""The model as a graph: ops, blocks, the Target record, placement; and built as a Keras model again."""
