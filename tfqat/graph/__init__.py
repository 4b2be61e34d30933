"""The model as a graph: view, blocks, the Target record, placement."""
