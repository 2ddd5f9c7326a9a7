"""Other programs' checkpoints, results and metrics."""
