"""What is decoded: the containers and codecs FFmpeg may use here, by the names people have for them. Pure.

`docs/api/media.md` is generated from these tables. A codec is here if its decoder is part of FFmpeg, refers to no other
file and keeps within the worker's memory and time; the sandbox (`server/media/workers/`) holds for all.
"""

IMAGES = {
    "JPEG": "a first image with others (MPO), too; one without its end marker, with a note",
    "PNG": "the first image of an APNG; refused where a checksum is wrong",
    "WebP": "the first image of an animation",
    "GIF": "the first image",
    "BMP": "an alpha channel of zeros counts as opaque",
    "TIFF": "the first page of full size, with a note where there are others; no camera's raw files",
    "AVIF": "the first image of an animation",
    "HEIF": "HEIC of phones: grids of tiles, rotation; of a burst the primary image; gain maps are left out",
}
"""Formats of images, and what to know of each."""

CONTAINERS = {
    "MP4, MOV, 3GP": ("mov", "mp4"),
    "Matroska, WebM": ("matroska", "webm"),
    "AVI": ("avi",),
    "MPEG transport and program streams": ("mpegts", "mpeg"),
    "FLV": ("flv",),
    "Ogg": ("ogg",),
    "WMV, ASF": ("asf",),
    "MXF": ("mxf",),
    "DV": ("dv",),
    "animated GIF, APNG": ("gif", "apng"),
}
"""FFmpeg's demuxers. No playlists: none of these may refer to another file."""

CODECS = {
    "H.264, H.265, H.266": ("h264", "hevc", "vvc"),
    "AV1": ("av1", "libdav1d"),
    "VP6, VP7, VP8, VP9": ("vp6", "vp6f", "vp6a", "vp7", "vp8", "vp9", "libvpx", "libvpx-vp9"),
    "MPEG-1, MPEG-2, MPEG-4 part 2, DivX": ("mpeg1video", "mpeg2video", "mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2"),
    "WMV, VC-1": ("wmv1", "wmv2", "wmv3", "vc1"),
    "H.261, H.263, Sorenson": ("h261", "h263", "h263i", "h263p", "flv", "svq1", "svq3"),
    "Theora": ("theora",),
    "Motion JPEG, JPEG 2000": ("mjpeg", "mjpegb", "jpeg2000"),
    "ProRes, DNxHD, CineForm, DV": ("prores", "dnxhd", "cfhd", "dvvideo"),
    "FFV1, HuffYUV, UtVideo, MagicYUV, Lagarith": ("ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "lagarith"),
    "QuickTime Animation and Graphics": ("qtrle", "rpza", "smc", "8bps"),
    "Cinepak, Indeo, Microsoft Video 1 and RLE": ("cinepak", "indeo3", "indeo4", "indeo5", "msvideo1", "msrle"),
    "screen recordings (ZMBV, Flash Screen)": ("zmbv", "flashsv", "flashsv2"),
    "Hap": ("hap",),
    "uncompressed": ("rawvideo", "v210", "v308", "v408", "v410", "r210", "yuv4"),
    "GIF, APNG, PNG": ("gif", "apng", "png"),
}
"""FFmpeg's decoders that may run."""

DEMUXER_NAMES = tuple(name for names in CONTAINERS.values() for name in names)
DECODER_NAMES = tuple(name for names in CODECS.values() for name in names)

STILL_DECODERS = frozenset({"mjpeg", "png", "gif", "apng"})
"""Decoders of single images, which a container may have as cover or preview next to its video."""
