"""A TFLite flatbuffer written from a graph and its Encodings: tensors, operators, one emitter a kind of op."""
