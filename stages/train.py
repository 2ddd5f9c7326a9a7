"""Stage train: train one model of the matrix."""

import argparse
from pathlib import Path

from avrecog.config import At, load_params
from avrecog.features.front_end import FrontEnd
from avrecog.features.settings import AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.models.registry import model_section
from avrecog.runtime.entry_point import entry_point
from avrecog.tracking.run import tracked
from avrecog.training.settings import TrainConfig
from avrecog.training.train import TrainingTask, train_model


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", required=True, help="a section below `models` in params.yaml")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables and the stores")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints")
    args = parser.parse_args()
    params = load_params(
        audio=AudioConfig | None,
        video=VideoConfig | None,
        train=TrainConfig,
        model=At(f"models.{args.model}", model_section()),
    )
    with tracked("train", params, args.model) as run:
        front_end = FrontEnd(params.audio, params.video)
        task = TrainingTask(args.model, params.model, params.train, front_end, args.data, args.out)
        run.log(train_model(task, run.log_epoch))


if __name__ == "__main__":
    main()
