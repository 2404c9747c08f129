"""Converts pixels of any video color space to SDR: HDR (PQ, HLG) is tone mapped, wide primaries become BT.709's. Pure.

What is in the file becomes light on a display, with the reference white of HDR, 203 cd/m2, as the white of SDR. Lights
brighter than that are compressed by the curve of BT.2390, from the brightest of the frame down, so that a frame within
SDR's range is what it was before it was made HDR. The curve is applied to the largest of red, green and blue, which
keeps hues. What BT.709 cannot show is clipped.

It works on pixels at the size the model sees, after a scaler made 16-bit RGB of the frame, so its cost does not depend
on the size of the video.

Source: Recommendations ITU-T H.273 (code points), ITU-R BT.2100-2 (PQ, HLG), BT.1886 (SDR displays), BT.2087
(primaries); Reports ITU-R BT.2390-11 section 5.4.1 (tone curve) and BT.2408-7 section 2.2 (reference white).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from model_executor.processor.patches import Pixels

Floats = NDArray[np.float32]
_Values = NDArray[np.float64] | np.float64

WHITE_NITS = 203.0
"""Reference white of HDR, cd/m2: what is as bright becomes white."""
HLG_PEAK_NITS = 1000.0
HLG_GAMMA = 1.2
"""The display that HLG is shown on, and its system gamma."""
PQ_PEAK_NITS = 10_000.0
HIGHLIGHTS = 0.01
"""Share of a frame's pixels that may be brighter than what counts as its brightest; they become white."""

_BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))
_PRIMARIES = {
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), (0.310, 0.316)),  # BT.470 M
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), (0.3127, 0.3290)),  # BT.601, 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), (0.3127, 0.3290)),  # BT.601, 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), (0.3127, 0.3290)),  # SMPTE ST 240
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), (0.310, 0.316)),  # film
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.3127, 0.3290)),  # Display P3
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), (0.3127, 0.3290)),  # EBU 3213
}
"""x and y of red, green, blue and white, by H.273's ColourPrimaries."""
_NAMES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_PQ, _HLG, _LINEAR = 16, 18, 8
_GAMMAS = {4: 2.2, 5: 2.8, 17: 2.6}
"""TransferCharacteristics that are a power of the sample; all others that are not named here are BT.1886's 2.4."""
_STEPS = 65_536


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """A color space other than that of BT.709 or sRGB, which need no conversion; H.273's code points."""

    primaries: int
    transfer: int

    @property
    def is_hdr(self) -> bool:
        """Whether it can be brighter than SDR's white."""
        return self.transfer in (_PQ, _HLG)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the client should know of the conversion."""
        if self.is_hdr:
            kind = "PQ" if self.transfer == _PQ else "HLG"
            return (f"The colors are HDR ({kind}) and were mapped to SDR by ITU-R BT.2390, 203 cd/m2 being white.",)
        name = _NAMES.get(self.primaries)
        return (f"The colors were converted from {name} to BT.709.",) if name else ()


def color_space(primaries: int, transfer: int) -> ColorSpace | None:
    """The color space of code points; None where samples are shown as they are.

    Args:
        primaries: H.273's ColourPrimaries; what is unspecified counts as BT.709, or of HDR as BT.2020.
        transfer: H.273's TransferCharacteristics.
    """
    if primaries not in _PRIMARIES:
        primaries = 9 if transfer in (_PQ, _HLG) and primaries != 1 else 1
    transfer = transfer if transfer in (_PQ, _HLG, _LINEAR, *_GAMMAS) else 1
    return None if (primaries, transfer) == (1, 1) else ColorSpace(primaries, transfer)


def to_sdr(samples: NDArray[np.uint16], space: ColorSpace, *, srgb: bool = False) -> Pixels:
    """Convert pixels to BT.709.

    Args:
        samples: [3, H, W], red, green and blue of 16 bits, full range.
        space: their color space.
        srgb: for an sRGB display, as images are; else for BT.1886's, as video is.

    Returns:
        uint8 [H, W, 3]; each channel is contiguous.
    """
    light = _light_table(space.transfer, srgb)[samples.reshape(3, -1)]
    if space.transfer == _HLG:
        light *= _hlg_gain(light)
    if space.is_hdr:
        _compress(light)
    red, green, blue = light
    light = np.stack([row[0] * red + row[1] * green + row[2] * blue for row in _matrix(space.primaries)])
    np.clip(light, 0, 1, out=light)
    # Equal steps of the square root are fine enough for dark pixels, too.
    np.sqrt(light, out=light)
    light *= _STEPS - 1
    light += 0.5
    return np.moveaxis(_sample_table(srgb)[light.astype(np.uint16)].reshape(samples.shape), 0, -1)


def _compress(light: Floats) -> None:
    """Compress what is brighter than white, in place; light [3, N], 1 is white."""
    largest = light.max(axis=0)
    place = max(0, int(len(largest) * (1 - HIGHLIGHTS)) - 1)
    peak = round(float(np.partition(largest, place)[place]), 2)
    if peak <= 1:
        return
    brightest = PQ_PEAK_NITS / WHITE_NITS
    np.sqrt(largest * (1 / brightest), out=largest)
    largest *= _STEPS - 1
    light *= _compression_table(peak)[np.minimum(largest, _STEPS - 1).astype(np.uint16)]


@lru_cache(maxsize=64)
def _compression_table(peak: float) -> Floats:
    """What light is multiplied by, by the square root of the light, up to PQ's peak.

    Args:
        peak: the brightest light that must not be lost, above 1.
    """
    light = np.linspace(0, 1, _STEPS) ** 2 * (PQ_PEAK_NITS / WHITE_NITS)
    end = pq_from_nits(np.float64(peak * WHITE_NITS))
    relative = np.minimum(pq_from_nits(light * WHITE_NITS) / end, 1)
    largest = pq_from_nits(np.float64(WHITE_NITS)) / end
    knee = 1.5 * largest - 0.5
    t = np.clip((relative - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * largest
    mapped = nits_from_pq(np.where(relative < knee, relative, spline) * end) / WHITE_NITS
    ratio: Floats = np.divide(mapped, light, out=np.ones_like(light), where=light > 0).astype(np.float32)
    return ratio


def _hlg_gain(scene: Floats) -> Floats:
    """What scene light is multiplied by to become display light relative to white, [N]; scene [3, N], BT.2020."""
    red, green, blue = scene
    luminance = np.float32(0.2627) * red + np.float32(0.6780) * green + np.float32(0.0593) * blue
    return np.asarray(luminance ** np.float32(HLG_GAMMA - 1) * np.float32(HLG_PEAK_NITS / WHITE_NITS))


@lru_cache(maxsize=8)
def _light_table(transfer: int, srgb: bool) -> Floats:
    """Light of each 16-bit sample: of PQ relative to white, of HLG of the scene, of SDR relative to its peak."""
    samples = np.linspace(0, 1, _STEPS)
    if transfer == _PQ:
        light = nits_from_pq(samples) / WHITE_NITS
    elif transfer == _HLG:
        light = scene_from_hlg(samples)
    elif transfer == _LINEAR:
        light = samples
    elif transfer in _GAMMAS:
        light = samples ** _GAMMAS[transfer]
    else:
        light = _DISPLAYS[srgb][0](samples)
    return light.astype(np.float32)


@lru_cache(maxsize=2)
def _sample_table(srgb: bool) -> NDArray[np.uint8]:
    """The SDR sample of each square root of light."""
    samples = _DISPLAYS[srgb][1](np.linspace(0, 1, _STEPS) ** 2)
    return np.round(samples * 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _matrix(primaries: int) -> Floats:
    """From linear RGB of some primaries to BT.709's, white to white, [3, 3]."""
    if primaries == 1:
        return np.eye(3, dtype=np.float32)
    matrix = np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(_PRIMARIES[primaries])
    balanced: Floats = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return balanced


def _to_xyz(points: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """From linear RGB of primaries to CIE XYZ; red, green, blue and white as x and y."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
    return np.asarray(columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3]))


def nits_from_pq(samples: _Values) -> NDArray[np.float64]:
    """The PQ EOTF: samples of 0..1 to cd/m2."""
    power = np.asarray(samples) ** (32 / 2523)
    low = np.maximum(power - 107 / 128, 0)
    return np.asarray(PQ_PEAK_NITS * (low / (2413 / 128 - 2392 / 128 * power)) ** (16_384 / 2610))


def pq_from_nits(nits: _Values) -> NDArray[np.float64]:
    """The inverse of `nits_from_pq`."""
    power = (np.asarray(nits) / PQ_PEAK_NITS) ** (2610 / 16_384)
    return np.asarray(((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


def scene_from_hlg(samples: _Values) -> NDArray[np.float64]:
    """The inverse of the HLG OETF: samples of 0..1 to scene light of 0..1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)


def _light_from_srgb(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _srgb_from_light(light: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


_Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_DISPLAYS: dict[bool, tuple[_Curve, _Curve]] = {
    False: (lambda samples: samples**2.4, lambda light: light ** (1 / 2.4)),
    True: (_light_from_srgb, _srgb_from_light),
}
"""Samples to light and back: of BT.1886 with a black of zero, and of sRGB."""
