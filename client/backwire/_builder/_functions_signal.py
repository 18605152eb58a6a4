"""Functions of signals. A complex number is a last axis of two elements, the real part and the imaginary one."""

import numpy as np

from backwire._builder import _shapes
from backwire._builder._shapes import Dim, Shape
from backwire._builder._value import Operand, Value, apply, as_constant, as_values, require_float
from backwire._errors import InvalidRequestError, ShapeError


def rfft(x: Value) -> Value:
    """Returns the discrete Fourier transform of the last axis of real `x`, [..., size // 2 + 1, 2] (numpy's rfft).

    Example:
        >>> bw.rfft(bw.input("x", ("batch", 16)))
        <DFT: float32[batch, 9, 2]>
    """
    require_float("DFT", x)
    rank = _shapes.rank_of("DFT", x.shape)
    if not rank or x.shape is None:
        raise ShapeError(f"DFT: {x!r} is a scalar; give at least one axis to transform")
    last = x.shape[-1]
    shape = (*x.shape[:-1], last // 2 + 1 if isinstance(last, int) else None, 2)
    return apply("DFT", [_with_parts(x, rank)], x.dtype, shape, attributes={"onesided": 1})


def irfft(x: Value, size: int) -> Value:
    """Returns the real signal [..., size] of which `x` [..., bins, 2] is the transform: `rfft` undone.

    Example:
        >>> bw.irfft(bw.input("bins", ("batch", 9, 2)), 16)
        <Squeeze: float32[batch, 16]>
    """
    require_float("DFT", x)
    if size < 1:
        raise InvalidRequestError(f"DFT: size={size}; give the length of the signal, at least 1")
    rank = _shapes.rank_of("DFT", x.shape)
    if rank < 2 or x.shape is None or not _shapes.may_equal(x.shape[-1], 2):
        raise ShapeError(f"DFT: {x!r} is no spectrum; give [..., bins, 2], the real and imaginary parts last")
    attributes = {"onesided": 1, "inverse": 1}
    found = apply("DFT", [x, as_constant(np.int64(size))], x.dtype, (*x.shape[:-2], size, 1), attributes=attributes)
    return apply("Squeeze", [found, as_constant(np.array([rank - 1]))], x.dtype, (*x.shape[:-2], size))


def stft(x: Value, frame: int, step: int, window: Operand | None = None) -> Value:
    """Returns the transform of each frame of real signals [batch, length], as [batch, frames, frame // 2 + 1, 2].

    Args:
        x: The signals.
        frame: The length of a frame.
        step: How far apart frames begin; there are as many as fit, and nothing is padded.
        window: [frame], what each frame is multiplied by; None for ones. It may be a parameter and be trained.

    Example:
        >>> bw.stft(bw.input("x", ("batch", 400)), frame=100, step=50)
        <STFT: float32[batch, 7, 51, 2]>
    """
    require_float("STFT", x)
    if min(frame, step) < 1:
        raise InvalidRequestError(f"STFT: frame={frame}, step={step}; both must be at least 1")
    if _shapes.rank_of("STFT", x.shape) != 2 or x.shape is None:
        raise ShapeError(f"STFT: {x!r} must be signals [batch, length]; reshape it")
    frames: Dim = _shapes.window("STFT", x.shape[1], frame, step, 1, 0)
    inputs: list[Value | None] = [_with_parts(x, 2), as_constant(np.int64(step)), None, as_constant(np.int64(frame))]
    if window is not None:
        _, inputs[2] = as_values("STFT", x, window)
    shape: Shape = (x.shape[0], frames, frame // 2 + 1, 2)
    return apply("STFT", inputs, x.dtype, shape, attributes={"onesided": 1})


def _with_parts(x: Value, rank: int) -> Value:
    """Returns real `x` with the last axis of size 1 that the operators want."""
    assert x.shape is not None
    return apply("Unsqueeze", [x, as_constant(np.array([rank]))], x.dtype, (*x.shape, 1))
