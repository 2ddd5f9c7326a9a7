"""Stage fuse: fit the fusion methods on val, choose one there, and report the fused result on test."""

import argparse
from pathlib import Path

from avrecog.config import load_params
from avrecog.fusion.fuse import fuse_models
from avrecog.fusion.settings import FuseConfig
from avrecog.pipeline import PipelineConfig
from avrecog.runtime.entry_point import entry_point
from avrecog.runtime.files import sole_writer
from avrecog.tracking.run import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--scores", type=Path, required=True, help="folder of the score files, one folder a model")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON file for the result")
    parser.add_argument("--fusion", type=Path, required=True, help="folder for the fusion and the Optuna studies")
    parser.add_argument("--plots", type=Path, required=True, help="folder for the pictures and tables")
    args = parser.parse_args()
    params = load_params(pipeline=PipelineConfig, fuse=FuseConfig)
    with sole_writer(args.metrics), tracked("fuse", params) as run:
        outcome = fuse_models(
            params.pipeline.models,
            args.scores,
            params.fuse,
            metrics_path=args.metrics,
            fusion_dir=args.fusion,
            plots_dir=args.plots,
        )
        run.log(outcome)


if __name__ == "__main__":
    main()
