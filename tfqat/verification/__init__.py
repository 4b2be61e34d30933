"""Runs exported files with the runtime that will read them and compares them with the trained model."""
