"""Stage benchmark: latency, throughput, memory, parameters and multiply-accumulates of a trained model."""

import argparse
from pathlib import Path

from avrecog.atomic import sole_writer
from avrecog.benchmarking import BenchmarkConfig, benchmark_model
from avrecog.config import load_params
from avrecog.entry import entry_point
from avrecog.predict import TestConfig
from avrecog.tracking import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="the model's name")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder that stage train wrote")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    args = parser.parse_args()
    params = load_params(test=TestConfig, benchmark=BenchmarkConfig)
    with sole_writer(args.out), tracked("benchmark", params, args.model) as run:
        run.log(benchmark_model(args.model, args.checkpoints, params.test, params.benchmark, args.out))


if __name__ == "__main__":
    main()
