"""The command line: one thin file a subcommand; TensorFlow and Keras are imported inside the jobs only."""
