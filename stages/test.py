"""Stage test: score val and test with a trained model."""

import argparse
from pathlib import Path

from avrecog.config import load_params
from avrecog.evaluation.test import EvaluationPaths, evaluate_model
from avrecog.inference.settings import TestConfig
from avrecog.runtime.entry_point import entry_point
from avrecog.runtime.files import sole_writer
from avrecog.tracking.run import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder that stage train wrote")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables and the stores")
    parser.add_argument("--scores", type=Path, required=True, help="folder for the score files")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the metrics")
    parser.add_argument("--plots", type=Path, required=True, help="folder for pictures and tables")
    args = parser.parse_args()
    params = load_params(test=TestConfig)
    with sole_writer(args.scores), tracked("test", params, args.model) as run:
        paths = EvaluationPaths(args.checkpoints, args.data, args.scores, args.metrics, args.plots)
        run.log(evaluate_model(args.model, paths, params.test))


if __name__ == "__main__":
    main()
