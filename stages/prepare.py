"""Stage prepare: read the annotation, probe every file, write manifest, splits, labels and report."""

import argparse
from pathlib import Path

from avrecog.annotations.prepare import prepare
from avrecog.annotations.sources import DataSection
from avrecog.config import load_params
from avrecog.runtime.entry_point import entry_point
from avrecog.runtime.files import sole_writer
from avrecog.tracking.run import tracked


@entry_point
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables (and the demo's clips)")
    args = parser.parse_args()
    params = load_params(data=DataSection)
    with sole_writer(args.out), tracked("prepare", params) as run:
        run.log(prepare(params.data, args.out))


if __name__ == "__main__":
    main()
