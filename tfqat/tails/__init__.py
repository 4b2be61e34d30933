"""Tails: files with a detector's raw outputs become files that give detections; decoding and suppression in float."""
