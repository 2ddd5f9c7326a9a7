"""Stage report: the model zoo table, and the rows of MLflow's experiment `avrecog`."""

import argparse
from pathlib import Path

from avrecog.annotations.settings import DataConfig
from avrecog.config import load_params
from avrecog.evaluation.report import ReportPaths, write_report
from avrecog.fusion.settings import FuseConfig
from avrecog.inference.settings import BenchmarkConfig, TestConfig
from avrecog.pipeline import PipelineConfig
from avrecog.runtime.entry_point import entry_point
from avrecog.runtime.files import sole_writer
from avrecog.tracking.rows import comparable_rows
from avrecog.tracking.run import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--models", type=Path, required=True, help="folder of the checkpoints, one folder a model")
    parser.add_argument("--metrics", type=Path, required=True, help="folder of the metric files")
    parser.add_argument("--plots", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file for the table")
    parser.add_argument("--curves", type=Path, required=True, help="folder for each model's numbers by epoch")
    args = parser.parse_args()
    params = load_params(
        pipeline=PipelineConfig, data=DataConfig, test=TestConfig, benchmark=BenchmarkConfig, fuse=FuseConfig
    )
    with sole_writer(args.out), tracked("report", params) as run, comparable_rows() as log_row:
        paths = ReportPaths(args.data, args.models, args.metrics, args.plots, args.out, args.curves)
        run.log(write_report(params.pipeline.models, params.flat(), paths, log_row))


if __name__ == "__main__":
    main()
