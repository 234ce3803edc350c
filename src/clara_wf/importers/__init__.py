"""From a package that a user brings to a model of ours: MONAI bundles, nnU-Net exports, ONNX with a description.

What knows the formats of other projects belongs here, and ends in a description and an ONNX file. What these mean, and
installing them, belongs to `inference`. Nothing of a package is executed or unpickled.
"""
