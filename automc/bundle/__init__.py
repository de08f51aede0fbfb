"""What a stranger deploys and verifies with onnxruntime and numpy alone."""

from automc.bundle.verify import Bundle

__all__ = ["Bundle"]
