"""Detection data: images with boxes, from Pascal VOC, COCO and TFRecord; one file a format."""
