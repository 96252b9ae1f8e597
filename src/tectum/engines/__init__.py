"""What computes a network: PyTorch, ONNX Runtime, OpenVINO."""
