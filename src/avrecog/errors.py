"""One family of errors: a class for each thing that a person can mend.

A message says where, what was expected, what came and what to do. Stages and the command line print it without a
traceback and exit with 1 (with 2 where test would leak into what is chosen); anything else that escapes is a bug and
shows its traceback.
"""


class AvrecogError(Exception):
    """Something that the person who runs avrecog can mend."""

    exit_code = 1


class ConfigError(AvrecogError, ValueError):
    """params.yaml, a recipe or a command-line value is wrong."""


class ManifestError(AvrecogError):
    """An annotation, manifest, split or label file is wrong."""


class LeakError(AvrecogError):
    """What would be learned or chosen from clips that must stay unseen: the result would be worth nothing."""

    exit_code = 2


class MediaError(AvrecogError):
    """A media file can't be read as asked."""


class NotMediaError(MediaError):
    """A file that is no sound and no moving picture, and doesn't claim to be: text, a still picture, a playlist."""


class StoreError(AvrecogError):
    """A feature store is missing, damaged or was made with other settings."""


class CheckpointError(AvrecogError):
    """A checkpoint is missing, damaged or belongs to another model."""


class ScoreError(AvrecogError):
    """A score file is wrong, or score files don't fit together."""


class PickleError(AvrecogError):
    """A pickle is damaged, or asks for more than plain values and arrays."""


class TrainingError(AvrecogError):
    """Training can't start or can't go on."""


class DivergedError(TrainingError):
    """The loss has exploded or is no number."""


class OutOfMemoryError(AvrecogError):
    """The device's memory does not hold what was asked for."""


class LockError(AvrecogError):
    """Another process is writing the same folder."""


class TrackingError(AvrecogError):
    """The tracking store can't be used."""
