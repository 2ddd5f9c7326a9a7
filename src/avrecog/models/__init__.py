"""Networks: one file each, and `build.py`, which makes them by name."""
