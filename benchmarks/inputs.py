"""What both sides are measured on."""

from fractions import Fraction

import av
import numpy as np
import skimage.data
from PIL import Image

from tests.support.images import encoded

QUESTION = "Describe what you see."
DECODE_BATCHES = (1, 4, 8)
DECODE_TOKENS = 128
REPEATS = 3


def jpeg(seed: int) -> bytes:
    """A photograph of 1280 x 960 as JPEG; another one for another seed, so that no cache knows it."""
    picture = Image.fromarray(skimage.data.coffee()).resize((1280, 960), Image.Resampling.LANCZOS)
    picture.putpixel((seed % 1280, seed // 1280), (255, 0, 255))
    return encoded(picture.rotate(seed % 7), "JPEG", quality=90)


def clip() -> bytes:
    """30 seconds of 720p H.264 at 30 frames a second: a photograph, panned."""
    import io

    wide = Image.fromarray(skimage.data.rocket()).resize((2180, 1240), Image.Resampling.LANCZOS)
    ground = np.asarray(wide)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(900):
            view = np.ascontiguousarray(ground[number // 2 : number // 2 + 720, number : number + 1280])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, "rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
