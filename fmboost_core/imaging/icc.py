"""ICC profiles: their colour space, and new ones for the colours that a PNG describes without a profile."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # x, y of white, red, green, blue, as in cHRM

# Of ITU-T H.273, which cICP names by number: primaries, and curves as parameters of ICC (g, or g a b c d).
_P3, _BT2020 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06), (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
_D65 = SRGB_PRIMARIES[:2]
_PRIMARIES = {
    1: SRGB_PRIMARIES, 5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06), 6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07), 9: (*_D65, *_BT2020), 11: (0.314, 0.351, *_P3), 12: (*_D65, *_P3),
}  # fmt: skip
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, tuple[float, ...]] = {
    1: _VIDEO_CURVE, 4: (2.2,), 5: (2.8,), 6: _VIDEO_CURVE, 8: (1.0,), 13: _SRGB_CURVE, 14: _VIDEO_CURVE,
    15: _VIDEO_CURVE,
}  # fmt: skip
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_space(icc: bytes) -> str:
    """The colour space in an ICC profile's header: "RGB", "GRAY", "CMYK"."""
    return icc[16:20].decode("ascii", "replace").strip()


def cicp_profile(body: bytes, grey: bool) -> bytes | None:
    """The profile of the colours that a cICP chunk names; None for HDR and for other numbers without a profile."""
    if len(body) != 4:
        return None
    primaries, curve = _PRIMARIES.get(body[0]), _CURVES.get(body[1])
    return build_profile(primaries, curve, grey) if primaries and curve and body[2] == 0 else None


def is_srgb(body: bytes) -> bool:
    """Whether a cICP chunk names sRGB."""
    return body[:2] == b"\1\x0d"


def chunk_profile(gamma: float | None, primaries: Sequence[float] | None, grey: bool) -> bytes | None:
    """The profile of the colours of gAMA (the exponent, such as 0.45455) and cHRM; None if they are those of sRGB."""
    curve = _SRGB_CURVE if gamma is None or abs(gamma - 0.45455) < 0.005 else (1 / gamma,)
    places = tuple(primaries or SRGB_PRIMARIES)
    if curve is _SRGB_CURVE and (grey or max(abs(a - b) for a, b in zip(places, SRGB_PRIMARIES, strict=True)) < 0.002):
        return None
    return build_profile(places, curve, grey)


def build_profile(places: Sequence[float], curve: Sequence[float], grey: bool) -> bytes | None:
    """An ICC profile, version 4, of a matrix and a curve; None for impossible places.

    places: x, y of white, red, green and blue. curve: the parameters g, or g, a, b, c, d, of its decoding.
    """
    matrix = _to_d50(places)
    if matrix is None:
        return None
    kind = 0 if len(curve) == 1 else 3
    tone = b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(curve)
    tags = {b"desc": _words("Colours of the picture"), b"cprt": _words("No copyright"), b"wtpt": _xyz(_D50)}
    if grey:
        tags[b"kTRC"] = tone
    else:
        tags |= {b"%cXYZ" % name: _xyz(matrix[:, i]) for i, name in enumerate(b"rgb")}
        tags |= {b"%cTRC" % name: tone for name in b"rgb"}
    head = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", head + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    space = b"GRAY" if grey else b"RGB "
    header = struct.pack(">I4sI4s4s4s", head + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + b"\0" * 28 + _fixed(_D50)
    return header.ljust(128, b"\0") + table + body


def _to_d50(places: Sequence[float]) -> NDArray[np.float64] | None:
    """The matrix from linear RGB to XYZ, adapted from its white to D50 as Bradford does."""
    xy = np.array(places, np.float64).reshape(4, 2)
    if not np.isfinite(xy).all() or (xy[:, 1] <= 0).any():
        return None
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    if abs(np.linalg.det(xyz[:, 1:])) < 1e-6:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ _D50) / (_BRADFORD @ xyz[:, 0])) @ _BRADFORD
    matrix = adapted @ (xyz[:, 1:] * np.linalg.solve(xyz[:, 1:], xyz[:, 0]))
    return matrix if np.isfinite(matrix).all() and np.abs(matrix).max() < 100 else None


def _fixed(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    """Numbers as s15Fixed16."""
    return struct.pack(f">{len(values)}i", *(round(float(v) * 65536) for v in values))


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(values)


def _words(text: str) -> bytes:
    """A text in English (mluc)."""
    body = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(body), 28) + body
