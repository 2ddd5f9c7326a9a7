"""Late fusion: several models, one decision."""
