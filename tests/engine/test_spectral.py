"""Fourier transforms against numpy's, and their errors."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.engine.one_node import compute, gradients, runtime

from backwire_server.engine.errors import EngineError, InvalidAttribute, InvalidValue, ShapeMismatch

Array = NDArray[Any]

DRAWS = np.random.default_rng(4)


def complex_of(parts: Array) -> Array:
    return np.asarray(parts[..., 0] + 1j * parts[..., 1])


def real(*shape: int) -> Array:
    return DRAWS.normal(size=(*shape, 1))


@pytest.mark.parametrize("length", [1, 3, 5, 8])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_transform_of_real_numbers_is_numpys(length: int, axis: int) -> None:
    x = real(5, 6)
    at = axis if axis >= 0 else 1
    whole, half = (compute("DFT", x, np.array(length), np.array(axis), onesided=each) for each in (0, 1))
    np.testing.assert_allclose(complex_of(whole), np.fft.fft(x[..., 0], length, at), atol=1e-12)
    np.testing.assert_allclose(complex_of(half), np.fft.rfft(x[..., 0], length, at), atol=1e-12)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_inverse_transform_is_numpys(length: int) -> None:
    x = DRAWS.normal(size=(3, 5, 2))
    whole = compute("DFT", x, np.array(length), inverse=1)
    np.testing.assert_allclose(complex_of(whole), np.fft.ifft(complex_of(x), length), atol=1e-12)
    signal = compute("DFT", x, np.array(length), inverse=1, onesided=1)
    np.testing.assert_allclose(signal[..., 0], np.fft.irfft(complex_of(x), length), atol=1e-12)


def test_one_sided_inverse_undoes_the_transform() -> None:
    x = real(2, 9)
    half = compute("DFT", x, onesided=1)
    np.testing.assert_allclose(compute("DFT", half, np.array(9), inverse=1, onesided=1), x, atol=1e-12)


def test_energy_of_the_spectrum_has_the_gradient_that_parseval_says() -> None:
    x = DRAWS.normal(size=(2, 6, 2))
    spectrum = compute("DFT", x)
    found = gradients("DFT", x, seed=2 * spectrum)["x0"]
    np.testing.assert_allclose(found, 2 * 6 * x, atol=1e-12)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("plain", [False, True])
def test_short_time_transform_is_that_of_each_frame(onesided: int, plain: bool) -> None:
    x, window = real(2, 20), np.hanning(6)
    signal = x[..., 0] if plain else x
    found = complex_of(compute("STFT", signal, np.array(4), window, onesided=onesided))
    frames = np.stack([x[:, at : at + 6, 0] * window for at in range(0, 15, 4)], 1)
    np.testing.assert_allclose(found, np.fft.rfft(frames) if onesided else np.fft.fft(frames), atol=1e-12)


def test_mel_weights_are_onnxruntimes() -> None:
    figures = (np.int64(12), np.int64(64), np.int64(16000), np.float32(60.0), np.float32(7000.0))
    np.testing.assert_allclose(compute("MelWeightMatrix", *figures), runtime("MelWeightMatrix", *figures), atol=1e-6)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "error", "message"),
    [
        ("DFT", (real(4)[..., 0],), {}, ShapeMismatch, "rank must be 2"),
        ("DFT", (np.ones((2, 4, 3)),), {}, ShapeMismatch, "last axis has size 3"),
        ("DFT", (real(2, 4), None, np.array(2)), {}, InvalidAttribute, "axis 2 holds the parts"),
        ("DFT", (real(2, 4), np.array(0)), {}, InvalidValue, "at least 1"),
        ("DFT", (np.ones((1, 1, 2)),), {"onesided": 1, "inverse": 1}, InvalidValue, "at least 1"),
        ("DFT", (np.ones((2, 4, 2)),), {"onesided": 1}, ShapeMismatch, "leave onesided out"),
        ("DFT", (real(2, 4),), {"onesided": 1, "inverse": 1}, ShapeMismatch, "parts of the spectrum"),
        ("STFT", (real(2, 4), np.array(0)), {}, InvalidValue, "frame_step is 0"),
        ("STFT", (real(2, 4), np.array(1), np.ones(5)), {}, ShapeMismatch, "frame of 5 does not fit"),
        ("STFT", (real(2, 4), np.array(1), np.ones(3), np.array(2)), {}, ShapeMismatch, "lengths of the window"),
        ("STFT", (np.ones((2, 4, 2)), np.array(1)), {}, ShapeMismatch, "leave onesided out"),
        (
            "MelWeightMatrix",
            (*map(np.array, (4, 16, 8000)), np.array(9.0), np.array(3.0)),
            {},
            InvalidValue,
            "below the upper one",
        ),
    ],
)
def test_malformed_transforms_are_refused(
    op: str, inputs: Any, attributes: Any, error: type[EngineError], message: str
) -> None:
    with pytest.raises(error, match=message):
        compute(op, *inputs, **attributes)
