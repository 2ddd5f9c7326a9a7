"""One family of errors: a class for each thing that a person can mend.

A message says where, what was expected, what came and what to do. Stages and the command line print it without a
traceback and exit with the class's exit code; anything else that escapes is a bug and shows its traceback.
"""


class AvrecogError(Exception):
    """Something that the person who runs avrecog can mend."""

    exit_code = 1


class ConfigError(AvrecogError, ValueError):
    """params.yaml, a recipe or a command-line value is wrong."""


class ManifestError(AvrecogError):
    """An annotation, manifest, split or label file is wrong."""


class MediaError(AvrecogError):
    """A media file can't be read as asked."""


class StoreError(AvrecogError):
    """A feature store is missing, damaged or was made with other settings."""


class CheckpointError(AvrecogError):
    """A checkpoint is missing, damaged or belongs to another model."""


class ScoreError(AvrecogError):
    """A score file is wrong, or score files don't fit together."""


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


class LeakError(AvrecogError):
    """Something would be chosen on the test split."""

    exit_code = 2
