"""Chooses the video track of a container, and the decoder that keeps all of it. Pure.

The track is the one a player shows: never a cover, thumbnail or tile, the default one before others, moving images
before single ones, and the largest of what is left. VP8 and VP9 keep transparency in a second layer, which of FFmpeg's
decoders only libvpx's reads.

Source: FFmpeg 8 `av_find_best_stream` and AV_DISPOSITION_*; the WebM project's `AlphaMode` element.
"""

from typing import cast

import av
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from server.media.decode.formats import DECODER_NAMES, STILL_DECODERS
from server.media.errors import MediaError

DECODER_THREADS = 2
"""Threads of one decoder. Frame threading only: pools of slice threads are known to hang."""

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image | Disposition.dependent
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def choose_track(container: InputContainer) -> VideoStream:
    """The track that is shown; all others are left out when packets are read.

    Raises:
        MediaError: none, or of a codec that is not supported.
    """
    tracks = list(container.streams.video)
    if not tracks:
        raise MediaError("invalid_media_format", "The file has no video stream; a video needs at least one.")
    moving = [track for track in tracks if not track.disposition & _NO_VIDEO]
    if not moving and any(track.disposition & Disposition.attached_pic for track in tracks):
        raise MediaError("invalid_media_format", "The file has a cover image, but no video stream.")
    track = max(moving or tracks, key=_rank)
    for other in container.streams:
        if other is not track:
            other.discard = Discard.all
    context = track.codec_context
    if context is None:
        raise MediaError("unsupported_media_codec", "The video's codec is unknown; convert the video to H.264.")
    if context.name not in DECODER_NAMES:
        raise MediaError(
            "unsupported_media_codec", f"Unsupported video codec: {context.name}; convert the video to H.264."
        )
    return track


def make_decoder(track: VideoStream) -> VideoCodecContext:
    """The decoder of a track: the container's own, or another one where that would drop transparency."""
    own = track.codec_context
    decoder = own
    alpha = next((value for name, value in track.metadata.items() if name.lower() == "alpha_mode"), "0")
    if own.name in _ALPHA_DECODERS and alpha == "1":
        decoder = cast("VideoCodecContext", av.CodecContext.create(_ALPHA_DECODERS[own.name], "r"))
        decoder.extradata = own.extradata
        decoder.width, decoder.height = own.width, own.height
    decoder.thread_count = DECODER_THREADS
    decoder.thread_type = ThreadType.FRAME
    return decoder


def _rank(track: VideoStream) -> tuple[bool, bool, bool, int]:
    context = track.codec_context
    is_known = context is not None and context.name in DECODER_NAMES
    is_single = track.frames == 1 or (context is not None and context.name in STILL_DECODERS)
    area = 0 if context is None else context.width * context.height
    return is_known, bool(track.disposition & Disposition.default) and not is_single, not is_single, area
