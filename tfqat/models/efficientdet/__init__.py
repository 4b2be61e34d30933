"""EfficientDet (arXiv 1911.09070): a backbone, a BiFPN over five levels, and two heads shared by them."""
