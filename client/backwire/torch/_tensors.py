"""Tensors of PyTorch as numpy's arrays, and back."""

from typing import Any

import ml_dtypes
import numpy as np
import torch

from backwire._arrays import Array

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def to_array(tensor: Any) -> Array:
    """Returns the tensor's numbers, which it shares where it is contiguous in the memory of the CPU."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:  # which numpy does not know by itself
        found: Array = plain.contiguous().view(torch.int16).numpy().view(BFLOAT16)
        return found
    return np.asarray(plain.numpy())


def to_tensor(array: Array, device: Any = None) -> Any:
    """Returns the array's numbers as a tensor with memory of its own."""
    if array.dtype == BFLOAT16:
        return torch.tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)
