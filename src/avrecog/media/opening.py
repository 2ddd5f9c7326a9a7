"""Opening a media file with FFmpeg."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import av.container

from avrecog.errors import MediaError, NotMediaError
from avrecog.media.kinds import is_named_as_media, not_media

av.logging.set_level(av.logging.FATAL)  # FFmpeg's warnings go to stderr otherwise; errors arrive as exceptions


MOST_BYTES = 4 * 2**30  # of a decoded clip, which is held in memory
MOST_PIXELS = 2**26  # of a frame: 8192 x 8192; decoding takes four times as many bytes and more


@contextlib.contextmanager
def open_media(path: Path, options: Mapping[str, str] | None = None) -> Iterator[av.container.InputContainer]:
    """An open container; what FFmpeg finds wrong while it is read becomes a MediaError that names the file.

    Raises:
        NotMediaError: if it is a still picture, text, subtitles or a playlist, and its name doesn't claim otherwise.
        MediaError: if the file can't be opened or read.
    """
    if os.path.isdir(path):  # unlike Path.is_dir it raises nothing
        raise MediaError(f"{path}: is a folder, expected a media file")
    # `file:`, and files only for what a playlist names: a path or a file is never an address to fetch from
    all_options = {"protocol_whitelist": "file", **(options or {})}
    try:
        with av.open(f"file:{path}", metadata_errors="replace", options=all_options) as container:
            _refuse_what_is_no_media(path, container)
            for stream in container.streams.video:
                if stream.codec_context is not None and stream.width * stream.height > MOST_PIXELS:
                    raise MediaError(
                        f"{path}: frames of {stream.width} x {stream.height}, expected at most {MOST_PIXELS:,} pixels"
                    )
            yield container
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; correct the path, or drop the row of the annotation") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: can't be decoded ({said(error)})") from None


def said(error: Exception) -> str:
    """What FFmpeg says is wrong."""
    return getattr(error, "strerror", None) or str(error)


def _refuse_what_is_no_media(path: Path, container: av.container.InputContainer) -> None:
    kind = not_media(container.format.name, container.metadata.get("major_brand", "").strip())
    if kind is not None:
        cause = MediaError if is_named_as_media(path) else NotMediaError
        raise cause(f"{path}: {kind}, no sound and no moving picture")
