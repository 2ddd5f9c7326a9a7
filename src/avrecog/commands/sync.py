"""`avrecog sync`: by how much the sound of each file is late."""

from collections.abc import Sequence
from pathlib import Path

from avrecog.errors import MediaError
from avrecog.extraction.media_file import decode_rows, log_remarks
from avrecog.inference.synchrony import load_sync, synchrony


def sync_files(files: Sequence[Path], checkpoint: Path, max_offset_s: float) -> str:
    """A line for each file.

    Raises:
        CheckpointError: if the checkpoint is of no network that compares sound and picture.
        MediaError: naming each file that can't be read, or is too short.
    """
    model = load_sync(checkpoint)
    lines, problems = [], []
    for file in files:
        remarks: list[str] = []
        try:
            rows = decode_rows(file, model, remarks)
        except MediaError as error:
            problems.append(str(error))
            continue
        log_remarks(file, remarks)
        try:
            found = synchrony(model, rows, max_offset_s)
        except MediaError as error:
            problems.append(f"{file}: {error}")
            continue
        when = "late" if found.offset_s > 0 else "early"
        said = f"the sound is {abs(found.offset_s):.2f} s {when}" if found.offset_s else "sound and picture are in time"
        lines.append(f"{file}: {said} (of {max_offset_s:g} s looked through); score as it stands {found.score:.2f}")
    if problems:
        raise MediaError("\n".join([*lines, *problems]))
    return "\n".join(lines)
