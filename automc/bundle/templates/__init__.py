"""What ships inside every bundle; run.py and verify.py import the standard library, numpy and onnxruntime alone."""
