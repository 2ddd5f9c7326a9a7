"""Networks: one file each, and `registry.py`, which makes them by name."""
