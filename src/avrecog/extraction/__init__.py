"""Stage extract: every clip decoded once and stored."""
