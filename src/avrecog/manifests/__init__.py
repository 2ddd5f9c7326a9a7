"""Labelled clips: from an annotation to the manifest, the splits and the class names."""
