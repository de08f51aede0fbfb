"""What a stranger deploys and verifies with onnxruntime and numpy alone."""
