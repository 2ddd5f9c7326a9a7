"""From stores to batches: index arithmetic, augmentation, and one dataset for each kind of input."""
