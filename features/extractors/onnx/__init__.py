"""ONNX files as extractors, each by a small description of what goes in and what comes out."""
