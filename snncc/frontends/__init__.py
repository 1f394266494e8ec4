"""From trained PyTorch networks and ONNX files to the imported graph."""
