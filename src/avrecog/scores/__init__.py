"""What models say about clips: arrays only."""
