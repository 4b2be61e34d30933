"""Scales from one file format into another: what the inputs say, what a format can hold, and what it leaves out."""
