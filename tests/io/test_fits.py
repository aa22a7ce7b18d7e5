"""Fit files: what goes in comes out, in both forms, and damaged or hostile files are refused by type."""

import contextlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsde.calibration import calibrate
from qsde.calibration.fit import Fit
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.training import TrainedFit, train
from qsde.calibration.training_start import neural_lsv
from qsde.errors import FileFormatError, InputError
from qsde.io.fits import packed, read_fits, unpacked, write_fits
from qsde.market.surface import Surface
from qsde.models import Heston
from qsde.noise import Threefry
from qsde.pricing.engine import MonteCarlo
from qsde.spec import dump_fits, load_fits, spec_of

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)


@pytest.fixture(scope="module")
def surface() -> Surface:
    t, k = np.repeat([0.25, 0.5, 1.0], 5), np.tile([80.0, 90.0, 100.0, 110.0, 120.0], 3)
    vol = 0.2 - 0.1 * np.log(k / 100)
    return Surface.from_vols(t, k, vol, 100.0, 0.99, vol - 0.002, vol + 0.002, spot=100.0, underlying="X")


@pytest.fixture(scope="module")
def trained(surface: Surface) -> TrainedFit:
    engine = MonteCarlo(n_paths=1 << 10, max_dt=1 / 16, noise=Threefry(1))
    return train(neural_lsv(surface, backbone=HESTON, width=8), surface, engine=engine, max_steps=2, held_out=5)


@pytest.fixture(scope="module")
def fits(surface: Surface, trained: TrainedFit) -> list[Fit]:
    return [calibrate(Heston.typical(), surface), calibrate_local_vol(surface), trained]


@pytest.mark.parametrize("name", ["fits.json", "fits.safetensors"])
def test_everything_comes_back(fits: list[Fit], tmp_path: Path, name: str) -> None:
    again = read_fits(write_fits(fits, tmp_path / name))
    assert dump_fits(again) == dump_fits(fits)
    assert [type(fit) for fit in again] == [type(fit) for fit in fits]
    for one, two in zip(fits, again, strict=True):
        for key, value in one.model.params.items():
            assert torch.equal(value.detach(), two.model.params[key])


def test_the_binary_form_is_smaller_and_holds_only_numbers_and_text(fits: list[Fit]) -> None:
    data = packed(fits)
    assert len(data) < 0.7 * len(dump_fits(fits))
    assert all(array.dtype == np.float64 for array in safetensors.numpy.load(data).values())


def test_what_a_training_left_comes_back(trained: TrainedFit) -> None:
    (again,) = unpacked(packed([trained]))
    assert isinstance(again, TrainedFit)
    torch.testing.assert_close(again.training.response(), trained.training.response(), rtol=0, atol=0)
    assert again.training.rounds == trained.training.rounds


def remade(data: bytes, change) -> bytes:
    """A file with the right form whose content was changed."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = safetensors.numpy.load(data)
    content = json.loads(header["json"])
    change(header, content, tensors)
    return safetensors.numpy.save(tensors, {**header, "json": json.dumps(content)})


VALUES = "fits.0.model.leverage.values"
CHANGES = {
    "infinite": (lambda h, c, t: t.update({VALUES: np.full_like(t[VALUES], np.inf)}), "infinite"),
    "not a number": (lambda h, c, t: t.update({VALUES: np.full_like(t[VALUES], np.nan)}), "leverage"),
    "negative": (lambda h, c, t: t.update({VALUES: -t[VALUES]}), "leverage"),
    "of another type": (lambda h, c, t: t.update({VALUES: t[VALUES].astype(np.int64)}), "float64"),
    "of another size": (lambda h, c, t: t.update({VALUES: t[VALUES][:, :-1].copy()}), "leverage"),
    "missing": (lambda h, c, t: t.pop(VALUES), "values"),
    "one too many": (lambda h, c, t: t.update({"more": np.zeros(3)}), "more"),
    "used twice": (lambda h, c, t: c["fits"][0].update(weight={"tensor": VALUES}), "values|weight"),
    "of another kind": (lambda h, c, t: h.update(kind="weights"), "fits of qsde"),
    "with an unknown field": (lambda h, c, t: c["fits"][0].update(code="import os"), "code"),
    "with fewer vols than quotes": (
        lambda h, c, t: c["fits"][0].update(model_iv=[0.2] * 3) or t.pop("fits.0.model_iv", None), "model_iv"),
    "of a model of another name": (lambda h, c, t: c["fits"][0]["model"].update(model="lsv"), "model"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_was_changed_is_refused(fits: list[Fit], name: str) -> None:
    change, text = CHANGES[name]
    with pytest.raises(InputError, match=text):
        unpacked(remade(packed([fits[1]]), change), "fit")


def test_weights_of_other_shapes_are_refused(trained: TrainedFit) -> None:
    name = "fits.0.training.jacobian"
    with pytest.raises(InputError, match="jacobian"):
        unpacked(remade(packed([trained]), lambda h, c, t: t.update({name: t[name][:, :-1].copy()})))
    with pytest.raises(InputError, match=r"training\.names"):
        unpacked(remade(packed([trained]), lambda h, c, t: c["fits"][0]["training"].update(names=["vol"])))


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/qsde-evil", "w"))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\x80\x04", pickle.dumps(Evil()), b"PK\x03\x04" + bytes(100), (1 << 62).to_bytes(8, "little") + b"{}",
     b"\xff" * 8 + b"{", (40).to_bytes(8, "little") + b"{" + b"[" * 39, b"[" * 100_000],
)  # fmt: skip
def test_other_files_are_refused_and_nothing_of_them_runs(data: bytes) -> None:
    with pytest.raises(InputError):
        unpacked(data, "fit")
    assert not Path("/tmp/qsde-evil").exists()


def _small() -> bytes:
    quotes = Surface.from_vols([0.5] * 5 + [1.0] * 5, [80.0, 90, 100, 110, 120] * 2, 0.2, 100.0)
    return packed([calibrate_local_vol(quotes)])


SMALL = _small()


@pytest.mark.parametrize("data", [b"", pickle.dumps({}), b"strike,expiry", SMALL[: len(SMALL) // 2], SMALL[:5]])
def test_messages_say_which_file_to_give(data: bytes) -> None:
    with pytest.raises(FileFormatError, match=r"give .* that qsde calibrate --out wrote"):
        unpacked(data, "fit")


def test_another_version_is_refused() -> None:
    with pytest.raises(FileFormatError, match="does not say that it holds fits of qsde"):
        unpacked(SMALL.replace(b"qsde fits 1", b"qsde fits 9"), "fit")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damage_never_raises_anything_else(data: st.DataObject) -> None:
    good = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(InputError):
        unpacked(bytes(good[:cut] if data.draw(st.booleans()) else good))


@pytest.mark.parametrize(
    ("table", "column", "values", "message"),
    [
        ("slices", "forward", None, r"surface\.slices: has no column 'forward'"),
        ("quotes", "iv", None, r"surface\.quotes: has no column 'iv'"),
        ("slices", "forward", ["a", 1.0, 1.0], r"surface\.slices\.forward: must be positive numbers, got \['a'"),
        ("slices", "t", [0.25, -0.5, 1.0], r"surface\.slices\.t: must be positive numbers"),
        ("slices", "rate", ["low", 0.0, 0.0], r"surface\.slices\.rate: must be numbers"),
        ("slices", "expiry", [1, 2, 3], r"surface\.slices\.expiry: must be text"),
        ("slices", "t", [0.25], r"surface\.slices: columns must be equally long and not empty"),
        ("quotes", "slice", [3] * 15, r"surface\.quotes\.slice: must be numbers from 0 to 2"),
    ],
)
def test_tables_that_are_not_those_of_a_fit(
    fits: list[Fit], table: str, column: str, values: list[Any] | None, message: str
) -> None:
    data = json.loads(dump_fits(fits[:1]))
    columns = data["fits"][0]["surface"][table]
    columns[column] = values
    if values is None:
        del columns[column]
    with pytest.raises(InputError, match=message):
        load_fits(json.dumps(data))


def test_parameters_that_the_model_has_not(fits: list[Fit]) -> None:
    data = json.loads(dump_fits(fits[:1]))
    data["fits"][0]["free"][0] = "v1"
    with pytest.raises(InputError, match="free: Heston has no parameter 'v1'"):
        load_fits(json.dumps(data))


def test_names_say_what_the_model_is(fits: list[Fit]) -> None:
    assert [spec_of(fit.model).model for fit in fits] == ["heston", "local_vol", "neural_lsv"]
    assert replace(fits[2]).model.name == "LocalHeston"
