"""Stage probe: a linear classifier on a network that learned without labels."""

import argparse
from pathlib import Path

from avrecog.config import load_params
from avrecog.evaluation.probe import probe_model
from avrecog.runtime.entry_point import entry_point
from avrecog.tracking.history import read_history, write_history
from avrecog.tracking.run import tracked
from avrecog.training.settings import TrainConfig


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of architecture avsync")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables and the stores")
    parser.add_argument("--curve", type=Path, required=True, help="CSV file for the training's numbers by epoch")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    args = parser.parse_args()
    params = load_params(train=TrainConfig)
    with tracked("probe", params, args.model) as run:
        write_history(args.curve, read_history(args.checkpoint.with_name("history.csv")))
        run.log(probe_model(args.checkpoint, args.data, params.train.seed, args.metrics))


if __name__ == "__main__":
    main()
