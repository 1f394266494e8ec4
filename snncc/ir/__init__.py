"""The intermediate representation: ONNX graphs with domain ai.snncc, and the Program."""
