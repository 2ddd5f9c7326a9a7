"""What a trained model is worth: the stages test, benchmark, probe and report."""
