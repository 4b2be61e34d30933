"""The maths of detection: anchors, boxes, matching, losses, suppression; numbers in, numbers out."""
