"""Fitting: it learns, repeats its digits, survives an interruption, stops, and its files hold nothing but numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qsde.errors import FileFormatError, InputError, NumericsError
from qsde.latent import LatentSDE, Record, Series, Settings, Stop, fit, load, save
from qsde.latent.files import read, write
from qsde.noise import Threefry

SETTINGS = Settings(iterations=12, batch=8, check_every=3, kl_ramp=4)


def waves(n: int = 24, seed: int = 0) -> Series:
    generator = torch.Generator().manual_seed(seed)
    times = torch.tensor([0.0, 0.2, 0.5, 0.6, 1.0])
    phase = 6 * torch.rand(n, 1, 1, generator=generator)
    return Series(times, torch.sin(phase + 3 * times.view(1, -1, 1)) + 0.1 * torch.randn(n, 5, 1, generator=generator))


def small_model(seed: int = 0) -> LatentSDE:
    model = LatentSDE(1, latent=2, context=4, hidden=8, solver=0.2, seed=seed)
    model.standardise(waves())
    return model


def same_weights(a: LatentSDE, b: LatentSDE) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_bound_rises() -> None:
    model, held_out = small_model(), waves(seed=1)
    looks: list[Record] = []
    training = fit(
        model, waves(), held_out, Settings(iterations=60, batch=16, check_every=20, kl_ramp=0), progress=looks.append
    )
    assert training.records == tuple(looks)
    assert [r.iteration for r in looks] == [20, 40, 60]
    assert training.stop is Stop.ITERATIONS
    first, last = looks[0].held_out, looks[-1].held_out
    assert first is not None
    assert last is not None
    assert last > first + 1


def test_a_training_shorter_than_the_ramp_is_not_thrown_away() -> None:
    model = small_model()
    training = fit(model, waves(), waves(seed=1), Settings(iterations=6, batch=8, check_every=3, kl_ramp=100))
    assert training.best == 6
    assert not same_weights(model, small_model())


def test_same_seed_same_digits() -> None:
    models = [small_model(), small_model()]
    trainings = [fit(model, waves(), settings=SETTINGS) for model in models]
    assert same_weights(*models)
    assert trainings[0].records == trainings[1].records
    other = small_model()
    fit(other, waves(), settings=Settings(iterations=12, batch=8, check_every=3, kl_ramp=4, seed=1))
    assert not same_weights(models[0], other)


def test_an_interrupted_training_goes_on_to_the_same_digits(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def killer(record: Record) -> None:
        if record.iteration == 6:
            raise Killed

    whole, parts, held_out = small_model(), small_model(), waves(seed=1)
    expected = fit(whole, waves(), held_out, SETTINGS)
    file = tmp_path / "training.safetensors"
    with pytest.raises(Killed):
        fit(parts, waves(), held_out, SETTINGS, checkpoint=file, progress=killer)
    fresh = small_model()
    seen: list[int] = []
    found = fit(fresh, waves(), held_out, SETTINGS, checkpoint=file, progress=lambda r: seen.append(r.iteration))
    assert seen == [9, 12]
    assert found.records == expected.records
    assert found.best == expected.best
    assert same_weights(fresh, whole)
    # a training that is over only hands back what it found
    assert fit(small_model(), waves(), held_out, SETTINGS, checkpoint=file).records == expected.records


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    fit(small_model(), waves(), settings=SETTINGS, checkpoint=file)
    with pytest.raises(InputError, match="its series differ"):
        fit(small_model(), waves(seed=2), settings=SETTINGS, checkpoint=file)
    with pytest.raises(InputError, match="its settings differ"):
        fit(small_model(), waves(), settings=Settings(), checkpoint=file)
    with pytest.raises(InputError, match="its sizes differ"):
        fit(LatentSDE(1, 3, solver=0.2), waves(), settings=SETTINGS, checkpoint=file)


def test_it_stops_where_the_held_out_bound_no_longer_rises() -> None:
    # white noise: there is nothing to learn that helps elsewhere
    noise = [
        Series(torch.arange(4.0), torch.randn(8, 4, 1, generator=torch.Generator().manual_seed(s))) for s in (0, 1)
    ]
    model = LatentSDE(1, latent=2, context=4, hidden=16, solver=1.0)
    settings = Settings(iterations=1000, rate=0.05, last_rate=1.0, check_every=10, patience=3, kl_ramp=0)
    training = fit(model, *noise, settings)
    assert training.stop is Stop.PATIENCE
    assert training.records[-1].iteration == training.best + 30
    best = max(r.held_out for r in training.records if r.held_out is not None)
    again = model.bound(noise[1], Threefry(0), 200).value.mean().detach()
    assert abs(float(again) - best) < 1.5


def test_a_model_survives_a_file(tmp_path: Path) -> None:
    model, file = small_model(), tmp_path / "fit.safetensors"
    fit(model, waves(), settings=SETTINGS)
    save(model, file)
    loaded = load(file)
    assert same_weights(model, loaded)
    assert (loaded.sizes, loaded.solver) == (model.sizes, model.solver)
    assert torch.equal(loaded.bound(waves(), Threefry(1)).value, model.bound(waves(), Threefry(1)).value)
    save(model.double(), file)
    assert same_weights(model, load(file))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    for content in (b"", b"\x80\x04pickle", b"{}" * 100):
        file.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"bad\.safetensors"):
            load(file)
    with pytest.raises(FileFormatError, match=r"none\.safetensors"):
        load(tmp_path / "none.safetensors")
    save_file({"w": torch.zeros(2)}, file)
    with pytest.raises(FileFormatError, match=r"not a file of qsde\.latent"):
        load(file)
    save(small_model(), file)
    tensors, about = read(file)
    for wrong in ({}, {**about, "sizes": {**about["sizes"], "hidden": 9}}, {**about, "solver": {"step": 1}}):
        write(file, tensors, wrong)
        with pytest.raises(FileFormatError, match="not a latent SDE"):
            load(file)
    save_file(tensors, file, {"qsde.latent": json.dumps([1])})
    with pytest.raises(FileFormatError, match="JSON object"):
        load(file)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "fit.safetensors", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: (cannot be written|is a folder)"):
            save(small_model(), path)
    assert not list(tmp_path.iterdir())


def test_a_prior_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    model = small_model()
    model.prior = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match="cannot be saved"):
        save(model, tmp_path / "fit.safetensors")


def test_a_bound_that_is_not_finite_is_an_error() -> None:
    model = small_model()
    with torch.no_grad():
        model.likelihood.decode.weight.fill_(1e30)
    with pytest.raises(NumericsError, match="lower the rate"):
        fit(model, waves(), settings=SETTINGS)


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"batch": 0}, {"rate": 0.0}, {"clip": float("nan")}])
def test_settings_refuse(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]
