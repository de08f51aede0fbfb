"""automc: the compression search that proves its numbers on your device."""
