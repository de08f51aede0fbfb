"""What a graph costs on a device: kernel rows, physical features, predictions with intervals."""
