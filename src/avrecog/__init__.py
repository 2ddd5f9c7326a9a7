"""Recognise what happens in a clip from its sound and picture."""
