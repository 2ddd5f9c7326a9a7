"""Stage benchmark: latency, throughput, memory, parameters and multiply-accumulates of a trained model."""

import argparse
from pathlib import Path

from avrecog.config import load_params
from avrecog.evaluation.benchmark import benchmark_model
from avrecog.inference.settings import BenchmarkConfig, TestConfig
from avrecog.runtime.entry_point import entry_point
from avrecog.runtime.files import sole_writer
from avrecog.tracking.run import tracked


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
