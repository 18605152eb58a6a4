"""Fourier transforms. A complex number is a last axis of two elements, the real part and the imaginary one."""

from typing import Any

import numpy as np

from backwire_server.engine.dims import Dim
from backwire_server.engine.errors import InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.graph import Array
from backwire_server.engine.ops.logic import dtype_named
from backwire_server.engine.registry import function, gradient, op
from backwire_server.engine.samples import F, case
from backwire_server.engine.shapes import axis_of, require, require_equal, require_rank, same
from backwire_server.engine.values import O, Value


@op(
    "FourierTransform",
    shape=same("f"),
    samples=[case(F(2, 5, 2), axis=1, inverse=0), case(F(3, 2, 2), axis=0, inverse=1)],
    internal=True,
)
def fourier_transform(x: Array, *, axis: int, inverse: int) -> Array:
    """Complex sums of x times exp(-2 pi i k n / N) along the axis, or exp(+...) / N for `inverse`. Used by DFT."""
    wide = np.ascontiguousarray(x, np.float64 if x.dtype == np.float64 else np.float32)
    signal = wide.view(np.result_type(wide, np.complex64))[..., 0]
    found = np.fft.ifft(signal, axis=axis) if inverse else np.fft.fft(signal, axis=axis)
    return np.stack((found.real, found.imag), -1).astype(x.dtype)


@gradient("FourierTransform")
def _(g: Value, y: Value, x: Value, *, axis: int, inverse: int) -> Value:
    size = float(x.sizes[axis])
    adjoint = O.FourierTransform(g, axis=axis, inverse=int(not inverse))
    return adjoint / size if inverse else adjoint * size


@function(
    "DFT",
    samples=[
        case(F(2, 5, 1)),
        case(F(1, 3, 4, 2), np.array(5), np.array(-3), inverse=1),
        case(F(2, 6, 1), np.array(4), onesided=1),
        case(F(2, 4, 2), onesided=1, inverse=1),
        case(F(2, 2, 2), np.array(5), onesided=1, inverse=1),
        case(F(4, 3, 1), None, np.array(0)),
    ],
)
def dft(
    x: Value,
    dft_length: Value | None = None,
    axis: Value | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Value:
    """The discrete Fourier transform of x [..., 1 or 2] along an axis, the last but one by default, as [..., 2].

    x is cut or padded with zeros to `dft_length`, by which the inverse is divided. With `onesided` a real x gives the
    first half of its spectrum, length // 2 + 1, and the inverse takes such a half and gives the real signal [..., 1],
    of length 2 (size - 1) by default.
    """
    require(x, "f")
    require_rank(x, 2)
    at = axis_of(-2 if axis is None else _number(axis), x.rank)
    if at == x.rank - 1:
        raise InvalidAttribute(f"axis {at} holds the parts of complex numbers; transform another")
    parts = _parts(x)
    if onesided and inverse:
        require_equal(parts, 2, "the parts of the spectrum that is transformed back and those of complex numbers")
        return _real_inverse(x, at, 2 * (int(x.shape[at]) - 1) if dft_length is None else _number(dft_length))
    if onesided and parts != 1:
        raise ShapeMismatch("a complex signal has no one-sided spectrum; give x [..., 1] or leave onesided out")
    length = int(x.shape[at]) if dft_length is None else _number(dft_length)
    signal = _fitted(x, at, length)
    if parts == 1:
        signal = O.Pad(signal, [0, 1], None, [x.rank - 1])
    found: Value = O.FourierTransform(signal, axis=at, inverse=int(bool(inverse)))
    return O.Slice(found, [0], [length // 2 + 1], [at]) if onesided else found


def _number(value: Value) -> int:
    require(value, "i")
    return int(value.known.reshape(()))


def _parts(x: Value) -> int:
    parts = int(x.shape[-1])
    if parts not in (1, 2):
        raise ShapeMismatch(f"the last axis has size {parts}; it must be 1 for real numbers or 2 for complex ones")
    return parts


def _checked(length: int) -> int:
    if length < 1:
        raise InvalidValue(f"the length of the transform is {length}; it must be at least 1")
    return length


def _fitted(x: Value, axis: int, length: int) -> Value:
    """Returns x cut or padded with zeros to the length along the axis."""
    size = int(x.shape[axis])
    if _checked(length) < size:
        return O.Slice(x, [0], [length], [axis])
    return O.Pad(x, [0, length - size], None, [axis]) if length > size else x


def _real_inverse(x: Value, axis: int, length: int) -> Value:
    """Returns the real signal of that length whose one-sided spectrum is x; the other side is its conjugate."""
    half = _fitted(x, axis, _checked(length) // 2 + 1)
    places = np.arange(x.builder.make(length))
    mirrored = places > length // 2
    signs = np.ones((length, *[1] * (x.rank - 2 - axis), 2), x.dtype)
    signs[mirrored, ..., 1] = -1
    whole = O.Gather(half, np.where(mirrored, length - places, places), axis=axis) * x.builder.constant(signs)
    return O.Slice(O.FourierTransform(whole, axis=axis, inverse=1), [0], [1], [x.rank - 1])


@function(
    "STFT",
    samples=[
        case(F(2, 7, 1), np.array(2), F(4)),
        case(F(1, 6, 2), np.array(3), None, np.array(3), onesided=0),
        case(F(1, 4, 1), np.array(1)),
        case(F(2, 5), np.array(2), F(3)),
    ],
)
def stft(
    signal: Value,
    frame_step: Value,
    window: Value | None = None,
    frame_length: Value | None = None,
    *,
    onesided: int = 1,
) -> Value:
    """The DFT of each frame of the signal [batch, length, 1 or 2] times the window, as [batch, frames, bins, 2].

    A real signal may also be [batch, length], as PyTorch exports it. A frame begins every `frame_step` elements as long
    as it fits. Its length is that of the window, `frame_length` or the whole signal; `onesided`, for real signals,
    keeps length // 2 + 1 bins.
    """
    require(signal, "f")
    require_rank(signal, 2, 3)
    if signal.rank == 2:
        signal = O.Unsqueeze(signal, [2])
    total, step = int(signal.shape[1]), _number(frame_step)
    length = _frame_length(window, frame_length, total)
    if step < 1:
        raise InvalidValue(f"frame_step is {step}; it must be at least 1")
    if not 1 <= length <= total:
        raise ShapeMismatch(f"a frame of {length} does not fit into a signal of {total}; use 1 to {total}")
    starts = np.arange((total - length) // step + 1) * step
    frames = O.Gather(signal, starts[:, None] + np.arange(length), axis=1)
    if window is not None:
        frames = frames * O.Unsqueeze(window, [1])
    return O.DFT(frames, None, np.array(2), onesided=onesided)


def _frame_length(window: Value | None, frame_length: Value | None, total: int) -> int:
    if window is None:
        return total if frame_length is None else _number(frame_length)
    require_rank(window, 1, 1)
    length: Dim = window.shape[0]
    if frame_length is not None:
        require_equal(length, _number(frame_length), "the lengths of the window and of a frame")
    return int(length)


@function(
    "MelWeightMatrix",
    samples=[
        case(np.array(4), np.array(16), np.array(8192), np.array(0.0), np.array(4096.0), static=(3, 4)),
        case(np.array(2), np.array(9), np.array(100), np.array(5.0), np.array(40.0), static=(3, 4), output_datatype=11),
    ],
)
def mel_weight_matrix(
    num_mel_bins: Value,
    dft_length: Value,
    sample_rate: Value,
    lower_edge_hertz: Value,
    upper_edge_hertz: Value,
    *,
    output_datatype: Any = 1,
) -> Value:
    """The matrix [dft_length // 2 + 1, num_mel_bins] of triangles that turns a spectrum into mel bands.

    The corners are evenly spaced on the scale 2595 log10(1 + f / 700) (O'Shaughnessy 1987), and cut to whole bins of
    the spectrum, as ONNX says: in num_mel_bins + 2 steps, of which the last one ends below the upper edge.
    """
    count, length, rate = _number(num_mel_bins), _number(dft_length), _number(sample_rate)
    lower, upper = (float(edge.known.reshape(())) for edge in (lower_edge_hertz, upper_edge_hertz))
    if min(count, length, rate) < 1 or not 0 <= lower < upper:
        raise InvalidValue(
            f"{count} bands from {lower} to {upper} Hz, {length} elements at a rate of {rate}: the numbers must be at "
            "least 1, and the lower edge at least 0 and below the upper one"
        )
    low, high = (2595.0 * np.log10(1.0 + edge / 700.0) for edge in (lower, upper))
    num_mel_bins.builder.make((count + 2) * (length // 2 + 1))
    mels = low + np.arange(count + 2) * (high - low) / (count + 2)
    corners = (length + 1) * 700.0 * (10.0 ** (mels / 2595.0) - 1.0) // rate
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins = np.arange(length // 2 + 1)[:, None]
    rising = (bins - left) / np.maximum(centre - left, 1)
    falling = (right - bins) / np.maximum(right - centre, 1)
    weights = np.clip(np.where(bins == centre, 1, np.where(bins < centre, rising, falling)), 0, 1)
    return num_mel_bins.builder.constant(weights.astype(dtype_named(output_datatype)))
