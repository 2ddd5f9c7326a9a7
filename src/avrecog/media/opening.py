"""Opening a media file with FFmpeg: the limits of what is opened, and what is refused."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import av.container

from avrecog.errors import MediaError, NotMediaError
from avrecog.media.kinds import PLAYLISTS, begins_as_stream, is_named_as_media, is_scanned_for, not_media, other_kind

av.logging.set_level(av.logging.FATAL)  # FFmpeg's warnings go to stderr otherwise; errors arrive as exceptions


# All that FFmpeg reads but playlists, so that it opens none of the files that one names
_FORMATS = ",".join(sorted(av.formats_available - PLAYLISTS))
MAX_BYTES = 4 * 2**30  # of a decoded clip, which is held in memory
MAX_PIXELS = 2**26  # of a frame: 8192 x 8192; decoding takes four times as many bytes and more


@contextlib.contextmanager
def open_media(path: Path, options: Mapping[str, str] | None = None) -> Iterator[av.container.InputContainer]:
    """An open container; what FFmpeg finds wrong while it is read becomes a MediaError that names the file.

    Raises:
        NotMediaError: if it is a still picture, text, subtitles or a playlist, and its name doesn't claim otherwise.
        MediaError: if the file can't be opened or read.
    """
    if os.path.isdir(path):  # unlike Path.is_dir it raises nothing
        raise MediaError(f"{path}: is a folder, expected a media file")
    if os.path.exists(path) and not os.path.isfile(path):
        raise MediaError(f"{path}: is no ordinary file, expected a media file")
    # `file:` and no playlists: a path or a file is never an address to fetch from, nor names another file to open
    all_options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS, **(options or {})}
    try:
        kind = other_kind(path)
        if kind is not None:
            raise _refusal(path)(f"{path}: {kind}, no sound and no moving picture")
        with av.open(f"file:{path}", metadata_errors="replace", options=all_options) as container:
            _refuse_what_is_no_media(path, container)
            for stream in container.streams.video:
                if stream.codec_context is not None and stream.width * stream.height > MAX_PIXELS:
                    raise MediaError(
                        f"{path}: frames of {stream.width} x {stream.height}, expected at most {MAX_PIXELS:,} pixels"
                    )
            yield container
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; correct the path, or drop the row of the annotation") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: can't be decoded ({format_error(error)})") from None


def format_error(error: Exception) -> str:
    """What FFmpeg says is wrong."""
    return getattr(error, "strerror", None) or str(error)


def _refuse_what_is_no_media(path: Path, container: av.container.InputContainer) -> None:
    name = container.format.name
    kind = not_media(name, container.metadata.get("major_brand", "").strip())
    if kind is not None:
        raise _refusal(path)(f"{path}: {kind}, no sound and no moving picture")
    if is_scanned_for(name) and not is_named_as_media(path) and not begins_as_stream(path):
        raise NotMediaError(
            f"{path}: no sound and no moving picture by its name or its first bytes, although something in it looks "
            f"like {name}; if it is one, name it so"
        )


def _refusal(path: Path) -> type[MediaError]:
    return MediaError if is_named_as_media(path) else NotMediaError
