"""Frozen networks that turn faces into affect vectors: ours, ONNX files, and plugins."""
