"""The command `avrecog sweep`: Optuna over parameters of params.yaml, each trial an experiment of dvc."""
