"""Training: one phase of epochs, its results folder, and how a broken run is continued."""
