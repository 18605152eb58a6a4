"""Resize: each axis by a product with the weights of its elements, or by a Gather of the nearest."""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from backwire_server.engine.differentiate import is_float
from backwire_server.engine.errors import GraphError, InvalidAttribute, InvalidValue, ShapeMismatch
from backwire_server.engine.ops.indexing import axes_in_order
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require_equal
from backwire_server.engine.values import O, Value

Places = NDArray[np.float64]

NEAREST: dict[str, Callable[[Places], Places]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
CROP = "tf_crop_and_resize"
TRANSFORMATIONS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", CROP)
ASPECTS: dict[str, Callable[[list[float]], float]] = {"not_larger": min, "not_smaller": max}
WHOLE = np.array([0.0, 1.0])


def choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns the value of an attribute; raises InvalidAttribute unless it is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise InvalidAttribute(f"{name} is {value!r}; use {', '.join(choices)}")
    return value


def _length(x: Value, axis: int) -> int:
    length = int(x.shape[axis])
    if length == 0:
        raise ShapeMismatch(f"axis {axis} has size 0, nothing to resize; name the other axes in axes")
    return length


def _scaled_sizes(
    x: Value, axes: list[int], scales: Value | None, sizes: Value | None, policy: str, spans: dict[int, Places]
) -> list[tuple[int, float]]:
    """Returns the new size and the scale of each axis; the size is -1 where a scale of 1 leaves it as it is."""
    given = scales if sizes is None else sizes
    if given is None or (scales is not None and sizes is not None):
        raise GraphError("takes either scales or sizes; give one of them")
    figures = given.known.tolist()
    if len(figures) != len(axes):
        raise ShapeMismatch(f"{len(figures)} scales or sizes for {len(axes)} axes; give one for each axis")
    if any(figure <= 0 for figure in figures):
        raise InvalidValue(f"the scales or sizes are {figures}; give positive ones")
    if sizes is None:
        pairs = [(axis, scale, float(np.ptp(spans[axis]))) for axis, scale in zip(axes, figures, strict=True)]
        return [(-1 if s == part == 1 else int(np.floor(_length(x, a) * part * s)), s) for a, s, part in pairs]
    lengths = [_length(x, axis) for axis in axes]
    ratios = [size / length for size, length in zip(figures, lengths, strict=True)]
    if policy == "stretch":
        return list(zip(figures, ratios, strict=True))
    ratio = ASPECTS[policy](ratios)
    return [(int(np.floor(ratio * length + 0.5)), ratio) for length in lengths]


def _places(mode: str, length: int, size: int, scale: float, span: Places) -> Places:
    """Returns where along an axis of that length the elements of the resized axis lie."""
    to, width, last = np.arange(size, dtype=np.float64), scale * length, length - 1
    if mode == CROP:
        start, end = span
        return start * last + to * (end - start) * last / (size - 1) if size > 1 else (start + end) / 2 * last + to
    if mode == "align_corners":
        return to * last / (width - 1) if width != 1 else to * 0
    if mode == "asymmetric":
        return to / scale
    if mode == "pytorch_half_pixel" and size == 1:
        return to
    offset = length / 2 * (1 - size / width) if mode == "half_pixel_symmetric" else 0.0
    return offset + (to + 0.5) / scale - 0.5


def _tent(distance: Places) -> Places:
    return np.clip(1 - np.abs(distance), 0, 1)


def _keys(distance: Places, a: float) -> Places:
    """Returns the cubic convolution kernel of Keys (1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    return np.where(d <= 1, near, np.where(d < 2, a * (((d - 5) * d + 8) * d - 4), 0))


def _weights(places: Places, length: int, *, shrink: float, cubic: float | None, inside_only: bool) -> Places:
    """Returns the matrix [places, length] that interpolates; `shrink` below 1 widens the kernel against aliasing."""
    reach = int(np.ceil((1 if cubic is None else 2) / shrink))
    taps = np.floor(places)[:, None] + np.arange(-reach, reach + 2)
    distance = (taps - places[:, None]) * shrink
    weights = _tent(distance) if cubic is None else _keys(distance, cubic)
    if inside_only:
        weights = np.where((taps >= 0) & (taps < length), weights, 0)
    if inside_only or shrink < 1:
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1, total)
    matrix = np.zeros((len(places), length))
    rows = np.broadcast_to(np.arange(len(places))[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, length - 1).astype(np.int64)), weights)
    return matrix


def _along(x: Value, matrix: Places, axis: int) -> Value:
    """Returns x with the matrix [new, old] applied along the axis."""
    weights = x.builder.constant(matrix.astype(x.dtype))
    if axis == x.rank - 2:
        return weights @ x
    transposed = x.builder.constant(matrix.T.astype(x.dtype))
    if axis == x.rank - 1:
        return x @ transposed
    swap = list(range(x.rank))
    swap[axis], swap[-1] = swap[-1], swap[axis]
    return O.Transpose(O.Transpose(x, perm=tuple(swap)) @ transposed, perm=tuple(swap))


def wide(x: Value, otherwise: str = "float32") -> Value:
    """Returns x in the type that it is interpolated in, of at least float32."""
    return x if is_float(x.dtype) and x.dtype.itemsize >= 4 else O.Cast(x, to=otherwise)


@function(
    "Resize",
    samples=[
        case(F(1, 1, 2, 3), None, np.array([1.0, 1.0, 2.0, 1.5]), static=(2,)),
        case(F(1, 2, 3), None, None, I(1, 4, 5), mode="linear"),
        case(F(2, 4), None, None, I(3), mode="linear", axes=(1,), antialias=1),
        case(F(4, 3), None, None, I(2, 6), mode="cubic", coordinate_transformation_mode="align_corners"),
        case(F(5, 2), None, None, I(2), mode="cubic", axes=(0,), antialias=1, exclude_outside=1),
        case(
            F(3, 4),
            np.array([0.2, -0.5, 0.9, 0.7]),
            None,
            I(2, 3),
            static=(1,),
            mode="linear",
            coordinate_transformation_mode=CROP,
            extrapolation_value=1.5,
        ),
    ],
)
def resize(
    x: Value,
    roi: Value | None = None,
    scales: Value | None = None,
    sizes: Value | None = None,
    *,
    antialias: int = 0,
    axes: tuple[int, ...] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    """x interpolated to other sizes, axis by axis, as ONNX's Resize says for each mode; any element type.

    Half precision and integers are interpolated in float32; integers are cut towards zero. With tf_crop_and_resize,
    `roi` bounds the part of x that is resized, and places outside x are filled with the extrapolation value.
    """
    choice("mode", mode, ("nearest", "linear", "cubic"))
    choice("nearest_mode", nearest_mode, NEAREST)
    choice("keep_aspect_ratio_policy", keep_aspect_ratio_policy, ("stretch", *ASPECTS))
    transformation = choice("coordinate_transformation_mode", coordinate_transformation_mode, TRANSFORMATIONS)
    roi, scales, sizes = (None if each is None or each.shape == (0,) else each for each in (roi, scales, sizes))
    places = list(range(x.rank)) if axes is None else axes_in_order(axes, x.rank)
    spans = _spans(roi, places) if transformation == CROP else dict.fromkeys(places, WHOLE)
    plan = _scaled_sizes(x, places, scales, sizes, keep_aspect_ratio_policy, spans)
    result = x if mode == "nearest" else wide(x)
    for axis, (size, scale) in zip(places, plan, strict=True):
        if scale == 1 and np.array_equal(spans[axis], WHOLE):
            continue
        length = _length(x, axis)
        count = x.builder.make(size if size >= 0 else length)
        at = _places(transformation, length, count, scale, spans[axis])
        if mode == "nearest":
            index = np.clip(NEAREST[nearest_mode](at), 0, length - 1).astype(np.int64)
            result = O.Gather(result, index, axis=axis)
        else:
            shrink = min(scale, 1.0) if antialias else 1.0
            x.builder.make(max(count, 1) * (length + 4 * math.ceil(1 / shrink)))
            cubic = cubic_coeff_a if mode == "cubic" else None
            matrix = _weights(at, length, shrink=shrink, cubic=cubic, inside_only=bool(exclude_outside))
            result = _along(result, matrix, axis)
        if transformation == CROP:
            inside = ((at >= 0) & (at <= length - 1)).reshape(-1, *[1] * (x.rank - 1 - axis))
            result = O.Where(inside, result, result.like(extrapolation_value))
    return result if result.dtype == x.dtype else O.Cast(result, to=x.dtype.name)


def _spans(roi: Value | None, axes: list[int]) -> dict[int, Places]:
    if roi is None:
        raise GraphError(f"needs the input roi in the mode {CROP}; give it or use another mode")
    require_equal(roi.shape[0], 2 * len(axes), "the elements of roi and the starts and ends of the axes")
    return dict(zip(axes, roi.known.astype(np.float64).reshape(2, -1).T, strict=True))
