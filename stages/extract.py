"""Stage extract: decode every clip of the manifest once and store its log-mel and its frames."""

import argparse
from pathlib import Path

from avrecog.config import At, Fraction, load_params
from avrecog.extraction.extract import extract_all
from avrecog.features.settings import AudioConfig
from avrecog.features.video_settings import VideoConfig
from avrecog.manifest import read_manifest
from avrecog.runtime.entry_point import entry_point
from avrecog.tracking.run import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--manifest", type=Path, required=True, help="clips to read (made by stage prepare)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stores")
    args = parser.parse_args()
    params = load_params(
        audio=AudioConfig | None, video=VideoConfig | None, max_skipped=At("data.max_skipped", Fraction)
    )
    with tracked("extract", params) as run:
        run.log(extract_all(read_manifest(args.manifest), args.out, params.audio, params.video, params.max_skipped))


if __name__ == "__main__":
    main()
