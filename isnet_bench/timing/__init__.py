"""Time and memory of a training step against the number of classes."""
