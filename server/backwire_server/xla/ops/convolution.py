"""Convolution and its two gradients, of which JAX makes the latter from the former: it is linear in each input."""

import jax
from jax import Array, lax

from backwire_server.xla.registry import kernel

Ints = tuple[int, ...]


@kernel("Convolution")
def convolution(x: Array, w: Array, *, strides: Ints, pads: Ints, dilations: Ints, group: int) -> Array:
    """The cross-correlation of x [N, C, d1, ...] with kernels w [M, C/group, k1, ...]"""
    around = [(pads[axis], pads[axis + len(strides)]) for axis in range(len(strides))]
    return lax.conv_general_dilated(x, w, strides, around, rhs_dilation=dilations, feature_group_count=group)


@kernel("ConvolutionInputGradient")
def convolution_input_gradient(g: Array, w: Array, *, sizes: Ints, group: int, **how: Ints) -> Array:
    """The gradient of Convolution by x, of those spatial sizes"""
    x = jax.ShapeDtypeStruct((g.shape[0], w.shape[1] * group, *sizes), g.dtype)
    return jax.linear_transpose(lambda x: convolution(x, w, group=group, **how), x)(g)[0]


@kernel("ConvolutionKernelGradient")
def convolution_kernel_gradient(x: Array, g: Array, *, kernel: Ints, group: int, **how: Ints) -> Array:
    """The gradient of Convolution by w, of that kernel shape"""
    w = jax.ShapeDtypeStruct((g.shape[1], x.shape[1] // group, *kernel), x.dtype)
    return jax.linear_transpose(lambda w: convolution(x, w, group=group, **how), w)(g)[0]
