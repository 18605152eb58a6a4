"""Batches that several devices compute lead to what they lead to on one, within rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jax")

from tests.xla.test_model import CLASSIFIER

from backwire_server.xla.model import XlaModel
from backwire_server.xla.sharding import TooFewDevices

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.xla.four_devices"], cwd=ROOT, env=os.environ, capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("rows", [12, 10])
def test_passes_agree_with_those_of_one_device(told: Any, rows: int) -> None:
    one, four = (told[f"{count} devices, {rows} rows"]["passes"] for count in (1, 4))
    assert four["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for expected, found in zip(one["values"], four["values"], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [12, 10])
def test_steps_agree_with_those_of_one_device(told: Any, rows: int) -> None:
    one, four = (told[f"{count} devices, {rows} rows"]["steps"] for count in (1, 4))
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(four["w"], one["w"], rtol=1e-3, atol=1e-5)


def test_a_batch_is_split_where_its_rows_can_be_shared_out(told: Any) -> None:
    assert told["4 devices, 12 rows"]["passes"]["devices"] == 4
    assert told["4 devices, 10 rows"]["passes"]["devices"] == 1


@pytest.mark.parametrize("rows", [12, 10])
def test_every_device_has_the_same_parameters(told: Any, rows: int) -> None:
    found = told[f"4 devices, {rows} rows"]["steps"]
    assert (found["devices"], len(found["bits"]), len(set(found["bits"]))) == (4, 4, 1)


def test_as_many_devices_lead_to_the_same_bits_again(told: Any) -> None:
    for each in told.values():
        assert each["again"] == each["steps"]
    assert told["4 devices, 10 rows"]["steps"]["bits"][0] == told["1 devices, 10 rows"]["steps"]["bits"][0]


def test_inputs_that_are_sent_ahead_lead_to_the_same_bits(told: Any) -> None:
    for each in told.values():
        assert each["ahead"] == each["steps"]


def test_devices_that_are_not_there_are_told() -> None:
    with pytest.raises(TooFewDevices) as raised:
        XlaModel(CLASSIFIER, devices=1_000)
    assert raised.value.found < 1_000
