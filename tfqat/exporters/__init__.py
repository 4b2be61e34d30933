"""One file a format: (float model, Encodings, path) -> file."""
