"""Calibration: ranges set from data before training."""
