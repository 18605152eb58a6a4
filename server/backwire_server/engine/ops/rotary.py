"""Position embedding by rotation."""

from backwire_server.engine.errors import InvalidAttribute
from backwire_server.engine.registry import function
from backwire_server.engine.samples import F, I, case
from backwire_server.engine.shapes import require_equal, require_rank
from backwire_server.engine.values import O, Value


@function(
    "RotaryEmbedding",
    samples=[
        case(F(1, 2, 2, 4), F(3, 2), F(3, 2), I([2, 0])),
        case(F(1, 2, 4), F(1, 2, 1), F(1, 2, 1), interleaved=1, num_heads=2),
        case(F(1, 1, 2, 5), F(1, 2, 1), F(1, 2, 1), rotary_embedding_dim=2),
    ],
)
def rotary_embedding(
    x: Value,
    cos_cache: Value,
    sin_cache: Value,
    position_ids: Value | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Value:
    """Turns pairs (a, b) of the features of x to (cos a - sin b, sin a + cos b), by their position (Su et al. 2021).

    x is [N, heads, steps, size], or [N, steps, heads size] with `num_heads`. Pairs are of the first and the second
    half of the first `rotary_embedding_dim` features, or of all where that is 0; `interleaved`, of neighbours. The
    caches are [positions, pairs] with position_ids [N, steps], or [N, steps, pairs] without.
    """
    require_rank(x, 3, 4)
    if x.rank == 3:
        if num_heads < 1 or int(x.shape[2]) % num_heads:
            raise InvalidAttribute(f"num_heads is {num_heads}; it must divide the last axis, of {x.shape[2]}")
        split = O.Reshape(x, [0, 0, num_heads, -1])
        return O.Reshape(
            _rotated(split, *_angles(cos_cache, sin_cache, position_ids, 2), interleaved, rotary_embedding_dim),
            [0, 0, -1],
        )
    return _rotated(x, *_angles(cos_cache, sin_cache, position_ids, 1), interleaved, rotary_embedding_dim)


def _angles(cosines: Value, sines: Value, positions: Value | None, axis: int) -> tuple[Value, Value]:
    """Returns cosines and sines [N, steps, pairs] of each position, with an axis of size 1 for the heads."""
    if positions is not None:
        require_rank(positions, 2, 2)
        cosines, sines = O.Gather(cosines, positions), O.Gather(sines, positions)
    for each in (cosines, sines):
        require_rank(each, 3, 3)
    return O.Unsqueeze(cosines, [axis]), O.Unsqueeze(sines, [axis])


def _rotated(x: Value, cosines: Value, sines: Value, interleaved: int, width: int) -> Value:
    size = int(x.shape[3])
    width = width or size
    if not 0 < width <= size or width % 2:
        raise InvalidAttribute(f"rotary_embedding_dim is {width}; it must be even and at most the head size, {size}")
    for each in (cosines, sines):
        require_equal(each.shape[3], width // 2, "the last axis of a cache and the number of pairs")
    turned, rest = O.Split(x, [width, size - width], axis=3, n_outputs=2)
    if interleaved:
        pairs = O.Reshape(turned, [0, 0, 0, width // 2, 2])
        a, b = (O.Squeeze(each, [4]) for each in O.Split(pairs, axis=4, n_outputs=2))
    else:
        a, b = O.Split(turned, axis=3, n_outputs=2)
    parts = cosines * a - sines * b, sines * a + cosines * b
    if interleaved:
        joined = O.Reshape(O.Concat(*(O.Unsqueeze(each, [4]) for each in parts), axis=4), [0, 0, 0, width])
    else:
        joined = O.Concat(*parts, axis=3)
    return O.Concat(joined, rest, axis=3) if width < size else joined
