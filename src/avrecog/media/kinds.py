"""What is sound or a moving picture, and what is neither although FFmpeg opens it."""

import re
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
PLAYLISTS = frozenset({"concat", "dash", "ffmetadata", "hls", "imf", "rtp", "rtsp", "sap", "sdp"})
_STILL_PICTURES = frozenset(
    {"alias_pix", "brender_pix", "fits", "ico", "image2", "image2pipe", "txd"}
)  # and all named *_pipe
_STILL_BRANDS = frozenset(
    {"avif", "heic", "heim", "heis", "heix", "mif1", "mif2", "miaf"}
)  # photographs in MP4's container
MAY_STAND_STILL = frozenset(
    {"apng", "gif", "jpegxl_anim", "mjpeg", "webp", "webp_anim"}
)  # a still picture where it has one frame

# FFmpeg knows these by what looks like them somewhere in a file, so that it finds them in anything
_SCANNED = frozenset({
    *("aac", "ac3", "av1", "avs2", "avs3", "cavsvideo", "data", "dirac", "dnxhd", "dts", "dv", "eac3", "evc", "h261"),
    *("h263", "h264", "hevc", "loas", "m4v", "mjpeg", "mjpeg_2000", "mlp", "mp3", "mpeg", "mpegts", "mpegvideo"),
    *("obu", "s337m", "sbc", "spdif", "truehd", "vc1", "vc1test", "vvc"),
})  # fmt: skip
_BEGINS = (
    *(b"ID3", b"APETAGEX", b"\0\0\1", b"\0\0\0\1", b"\x0bw", b"w\x0b", b"BBCD", b"\x12\0", b"\xff\xd8\xff"),
    *(b"\x7f\xfe\x80\1", b"\xfe\x7f\1\x80", b"\x1f\xff\xe8\0", b"\xff\x1f\0\xe8", b"\x1f\7\0"),
    *(b"\0\0\x80", b"\0\0\2\x80", b"\0\0\0\x0cjP  ", b"\x9c", b"\x72\xf8\x1f\x4e"),
)  # of streams: H.264 and its like, AC-3, Dirac, AV1, JPEG, DTS, DV, H.263, DNxHD, JPEG 2000, SBC, S/PDIF

_OTHERS = {
    b"PK\3\4": "an archive (ZIP)",
    b"PK\5\6": "an archive (ZIP)",
    b"\x1f\x8b\x08": "an archive (gzip)",
    b"BZh": "an archive (bzip2)",
    b"\xfd7zXZ\0": "an archive (xz)",
    b"\x28\xb5\x2f\xfd": "an archive (Zstandard)",
    b"7z\xbc\xaf\x27\x1c": "an archive (7-Zip)",
    b"Rar!\x1a\x07": "an archive (RAR)",
    b"MSCF\0\0\0\0": "an archive (cabinet)",
    b"!<arch>\n": "an archive (ar)",
    b"%PDF-": "a document (PDF)",
    b"%!PS": "a document (PostScript)",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a document (Office)",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "a database",
    b"\x89HDF\r\n\x1a\n": "arrays (HDF5)",
    b"#EXTM3U": "a playlist",
    b"ffconcat version": "a playlist",
    b"[playlist]": "a playlist",
}  # by their first bytes
_ELSEWHERE = {(257, b"ustar"): "an archive (tar)", (32_769, b"CD001"): "a disc's image (ISO 9660)"}

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


def other_kind(path: Path) -> str | None:
    """What a file is that its bytes tell to be neither sound nor a moving picture, whatever lies in it.

    Archives and documents may hold media, which FFmpeg would find; a playlist names files, which it would open.
    """
    with path.open("rb") as file:
        begin = file.read(2048)
        for (at, name), kind in _ELSEWHERE.items():
            file.seek(at)
            if file.read(len(name)) == name:
                return kind
    for name, kind in _OTHERS.items():
        if begin.startswith(name):
            return kind
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b"#EXTM3U", b"ffconcat")) or re.match(rb"v=0\r?\n(o|s)=", text):
        return "a playlist"
    return "a playlist" if text.startswith(b"<") and re.search(rb"<(MPD|CompositionPlaylist)\b", text) else None


def begins_as_stream(path: Path) -> bool:
    """Whether a file begins as a stream without a header does, in which FFmpeg looks for what repeats."""
    with path.open("rb") as file:
        begin = file.read(600)
    packets = ((0, 188), (4, 192), (0, 204))
    is_ts = any(len(begin) > at + step and begin[at] == begin[at + step] == 0x47 for at, step in packets)
    is_synchronised = len(begin) > 1 and (
        begin[0] == 0xFF and begin[1] >= 0xE0 or begin[0] == 0x56 and begin[1] >= 0xE0
    )
    return is_ts or is_synchronised or begin.startswith(_BEGINS) or begin[4:7] == b"\xf8\x72\x6f"


def is_scanned_for(format_name: str) -> bool:
    """Whether FFmpeg recognises a format by what repeats in a file, and so may find it in anything."""
    return format_name in _SCANNED


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
    return "a playlist" if format_name in PLAYLISTS else None
