"""What is sound or a moving picture, and what is neither although FFmpeg opens it."""

from pathlib import Path

ENDINGS = frozenset({
    *(".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape", ".asf", ".au", ".avi"),
    *(".awb", ".caf", ".divx", ".dts", ".dv", ".eac3", ".f4v", ".flac", ".flv", ".gsm", ".h264", ".hevc", ".ivf"),
    *(".m1v", ".m2t", ".m2ts", ".m2v", ".m4a", ".m4b", ".m4v", ".mjpeg", ".mjpg", ".mka", ".mkv", ".mov", ".mp2"),
    *(".mp3", ".mp4", ".mpc", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".oga", ".ogg", ".ogm", ".ogv"),
    *(".opus", ".qt", ".ra", ".rm", ".rmvb", ".snd", ".spx", ".tod", ".trp", ".ts", ".tta", ".vob", ".voc"),
    *(".w64", ".wav", ".wave", ".webm", ".wma", ".wmv", ".wtv", ".wv"),
})  # fmt: skip  # a file named so claims to be sound or a moving picture, whatever is in it

_TEXT = frozenset({"adf", "bin", "idf", "lrc", "tty", "xbin"})  # FFmpeg draws text files
_SUBTITLES = frozenset({
    *("aqtitle", "ass", "dvbsub", "dvbtxt", "jacosub", "mcc", "microdvd", "mpl2", "mpsub", "pjs", "realtext"),
    *("sami", "scc", "srt", "stl", "subviewer", "subviewer1", "sup", "tedcaptions", "vobsub", "vplayer"),
    "webvtt",
})  # fmt: skip
_PLAYLISTS = frozenset({"concat", "dash", "ffmetadata", "hls", "imf", "rtp", "rtsp", "sap", "sdp"})
_STILL_PICTURES = frozenset(
    {"alias_pix", "brender_pix", "fits", "ico", "image2", "image2pipe", "txd"}
)  # and all named *_pipe
_STILL_BRANDS = frozenset(
    {"avif", "heic", "heim", "heis", "heix", "mif1", "mif2", "miaf"}
)  # photographs in MP4's container
MAY_STAND_STILL = frozenset(
    {"apng", "gif", "jpegxl_anim", "mjpeg", "webp", "webp_anim"}
)  # a still picture where it has one frame

_FIRST_BYTES = (
    *(b"fLaC", b"OggS", b"FLV", b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"caff", b".snd", b"#!AMR"),
    *(b"riff\x2e\x91\xcf\x11", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),  # W64, ASF
)
_CHUNKED = (b"RIFFWAVE", b"RF64WAVE", b"RIFFAVI ", b"FORMAIFF", b"FORMAIFC")


def is_named_as_media(path: Path) -> bool:
    """Whether a file's name says that it is sound or a moving picture."""
    return path.suffix.lower() in ENDINGS


def claims_to_be_media(path: Path) -> bool:
    """Whether a file says by its name's ending, or by its first bytes, that it is sound or a moving picture."""
    if is_named_as_media(path):
        return True
    try:
        with path.open("rb") as file:
            begin = file.read(400)
    except OSError:
        return False
    is_ts = any(len(begin) > at + 188 and begin[at] == begin[at + step] == 0x47 for at, step in ((0, 188), (4, 192)))
    return is_ts or begin.startswith(_FIRST_BYTES) or begin[4:8] == b"ftyp" or begin[:4] + begin[8:12] in _CHUNKED


def not_media(format_name: str, brand: str) -> str | None:
    """What a file is that FFmpeg opens by one of its formats, where that is neither sound nor a moving picture.

    Args:
        format_name: the demuxer's.
        brand: of a file in MP4's container; else empty.
    """
    if format_name in _STILL_PICTURES or format_name.endswith("_pipe") or brand in _STILL_BRANDS:
        return "a still picture"
    if format_name in _SUBTITLES:
        return "subtitles"
    if format_name in _TEXT:
        return "text"
    return "a playlist" if format_name in _PLAYLISTS else None
