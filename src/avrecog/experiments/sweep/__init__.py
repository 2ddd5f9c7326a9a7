"""A search over parameters, each trial an experiment of DVC."""
