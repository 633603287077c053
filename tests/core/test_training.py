"""The training: its schedule against A.1, its batches, and that it can be stopped anywhere."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from miewid_core import model, training
from miewid_core.chips import Batches, ChipDataset, ChipStore
from miewid_core.config import (
    PRESETS,
    FineTuneConfig,
    TrainConfig,
    fine_tuning,
    learning_rate,
    preset,
)
from miewid_core.files import write_checked
from miewid_core.readers.load import load_catalog
from miewid_core.training import fit

TINY = preset("demo", image_size=32, batch_size=8, epochs=3, warmup_epochs=1)


def dataset_of(photos, folder, seed=0):
    store = ChipStore(folder, TINY.image_size)
    labels, _ = pd.factorize(photos["individual"], sort=True)
    return ChipDataset(store, store.build(photos).tolist(), labels, augment=True, seed=seed)


def fitted(photos, folder, name, workers=0, seed=0, config=TINY):
    counts = np.full(photos["individual"].nunique(), 4)
    dataset = dataset_of(photos, folder, seed)
    device = torch.device("cpu")
    return fit(dataset, counts, config, seed, folder / name, "test", device, workers)


def same(left, right):
    first, second = left.state_dict(), right.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_paper_preset_is_appendix_a1():
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.image_size, paper.batch_size) == ("efficientnetv2_rw_m", 256, 112)
    assert (paper.scale, paper.sub_centers, paper.margin_high) == (51.5, 3, 0.5)
    rates = [learning_rate(paper, epoch) for epoch in range(18)]
    assert rates[0] == pytest.approx(1.5e-5)
    assert rates[15] == pytest.approx(1.5e-3)
    np.testing.assert_allclose(np.diff(rates[:16]), (1.5e-3 - 1.5e-5) / 15)
    np.testing.assert_allclose(np.divide(rates[16:], rates[15:-1]), 0.8)


class TwiceAdvanced(torch.optim.lr_scheduler.LRScheduler):
    """A.1's values by a scheduler of torch that advances its epoch once more in each call."""

    def __init__(self, optimizer, config):
        self.config = config
        super().__init__(optimizer)

    def get_lr(self):
        number, config = self.last_epoch, self.config
        self.last_epoch += 1
        if number == 0:
            return [config.start_rate]
        if number < config.warmup_epochs:
            share = number / config.warmup_epochs
            return [config.start_rate + share * (config.peak_rate - config.start_rate)]
        falls = number - config.warmup_epochs
        return [9e-6 + (config.peak_rate - 9e-6) * config.decay**falls]


@pytest.mark.parametrize("warmup", [0, 1, 2, 5, 15])
def test_the_released_schedule_is_that_of_the_authors_scheduler(warmup):
    config = preset("paper", schedule="released", warmup_epochs=warmup)
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=config.start_rate)
    scheduler = TwiceAdvanced(optimizer, config)
    for epoch in range(30):
        rate = optimizer.param_groups[0]["lr"]
        assert learning_rate(config, epoch) == pytest.approx(rate, rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_released_schedule_peaks_in_half_the_epochs_and_falls_to_a_floor():
    config = preset("paper", schedule="released")
    rates = [learning_rate(config, epoch) for epoch in range(60)]
    assert int(np.argmax(rates)) == 7  # epoch 8 of a history, which counts from 1
    assert rates[7] == pytest.approx(1.5e-5 + (1.5e-3 - 1.5e-5) * 14 / 15)
    falling = np.array(rates[8:]) - 9e-6
    np.testing.assert_allclose(falling[1:10] / falling[:9], 0.64)
    assert min(rates[8:]) == rates[-1] == pytest.approx(9e-6, rel=1e-3)


def test_a_level_schedule_climbs_stays_and_falls_by_the_step():
    config = TrainConfig(schedule="level", epochs=20, start_rate=1e-4, peak_rate=1e-2)
    at = 0, 1.5, 3, 14.9, 17.5, 20
    rates = [learning_rate(config, epoch) for epoch in at]
    assert rates == pytest.approx([1e-4, 5.05e-3, 1e-2, 1e-2, 5.5e-3, 1e-3])


def test_each_step_has_its_rate(photos, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "learning_rate", lambda _, epoch: seen.append(epoch) or 1e-3)
    fitted(photos, tmp_path, "a", config=preset("demo", image_size=32, batch_size=8, epochs=2))
    steps = len(set(seen)) // 2
    assert steps > 1
    assert sorted(set(seen)) == pytest.approx(np.arange(2 * steps) / steps)


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("huge", {}, "choose one of demo, compact, paper"),
        ("demo", {"batch_size": 0}, "batch_size is 0"),
        ("demo", {"frozen_stages": -1}, "frozen_stages is -1"),
        ("demo", {"schedule": "cosine"}, "choose one of paper, released, level"),
        ("demo", {"optimizer": "sgd"}, "optimizer is 'sgd'; choose one of adam, muon"),
    ],
)
def test_presets_and_bad_values_are_named(name, changes, text):
    with pytest.raises(ValueError, match=text):
        preset(name, **changes)


def test_muon_turns_the_backbones_matrices_alike_in_all_directions_and_leaves_the_head_to_adam():
    config = preset("demo", image_size=32, start_rate=0.01, optimizer="muon")
    trainer = training.Trainer(np.array([4, 4]), config, 0, torch.device("cpu"))
    parts = [*trainer.model.parameters()], [*trainer.head.parameters()]
    before = [[weight.detach().clone() for weight in part] for part in parts]
    generator = torch.Generator().manual_seed(0)
    for part in parts:
        for weight in part:
            weight.grad = torch.randn(weight.shape, generator=generator)
    trainer.optimizer.step()
    matrices = 0
    for weight, old in zip(parts[0], before[0], strict=True):
        if weight.ndim > 1 and min(weight.flatten(1).shape) > 1:
            moved = torch.linalg.svdvals((weight.detach() - old).flatten(1))
            assert moved.min() > 0.4 * moved.max()  # Newton's five steps make them nearly equal
            matrices += 1
    assert matrices > 10
    (weight,), (old,) = parts[1], before[1]
    moved = (weight.detach() - old).abs()
    assert moved.std() < 0.1 * moved.mean()  # Adam's first step has one size


@given(st.integers(1, 300), st.integers(2, 64), st.integers(0, 5))
def test_batches_hold_every_item_once_and_are_even(n_items, batch_size, seed):
    batches = list(Batches(n_items, batch_size, seed))
    assert sorted(item for batch in batches for item in batch) == list(range(n_items))
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_batches_differ_by_epoch_and_repeat_by_seed():
    first, second, again = (Batches(50, 8, seed) for seed in (1, 2, 1))
    assert list(first) == list(again)
    assert list(first) != list(second)
    again.epoch = 1
    assert list(first) != list(again)


def test_loss_falls_and_the_global_generator_is_left_alone(photos, tmp_path):
    before = torch.get_rng_state()
    config = dataclasses.replace(TINY, epochs=20, warmup_epochs=2, peak_rate=1e-3)
    model, _, history = fitted(photos, tmp_path, "run.safetensors", config=config)
    assert torch.equal(before, torch.get_rng_state())
    assert not model.training
    assert history["epoch"].tolist() == list(range(1, 21))
    assert history["loss"].iloc[-5:].max() < history["loss"].iloc[0]  # on 24 photos


@pytest.mark.skipif("TQDM_DISABLE" in os.environ, reason="no bars are wanted")
def test_a_training_shows_how_far_it_is_where_there_is_no_terminal(photos, tmp_path, capfd):
    """As in a notebook."""
    fitted(photos, tmp_path, "a")
    assert "test: 100%" in capfd.readouterr().err


def test_same_seed_same_bits_for_any_number_of_workers(photos, tmp_path):
    one, _, _ = fitted(photos, tmp_path, "one.safetensors")
    two, _, _ = fitted(photos, tmp_path, "two.safetensors", workers=2)
    other, _, _ = fitted(photos, tmp_path, "other.safetensors", seed=1)
    assert same(one, two)
    assert not same(one, other)


def test_stopped_after_any_epoch_ends_with_the_same_bits(photos, tmp_path, monkeypatch):
    whole, _, history = fitted(photos, tmp_path, "whole.safetensors")
    for stop in (1, 2):
        name = f"stop{stop}.safetensors"
        with monkeypatch.context() as patched:
            patched.setattr(training.Trainer, "epoch", _stopping(training.Trainer.epoch, stop))
            with pytest.raises(KeyboardInterrupt):
                fitted(photos, tmp_path, name)
        resumed, _, again = fitted(photos, tmp_path, name)
        assert same(whole, resumed)
        pd.testing.assert_frame_equal(history, again)


def _stopping(epoch, stop):
    def stopping(self, *arguments):
        if len(self.history) == stop:
            raise KeyboardInterrupt
        epoch(self, *arguments)

    return stopping


def test_a_loss_that_is_not_finite_stops_the_training(photos, tmp_path):
    config = preset("demo", image_size=32, peak_rate=float("nan"), warmup_epochs=0, epochs=3)
    with pytest.raises(FloatingPointError, match="lower peak_rate"):
        fitted(photos, tmp_path, "nan.safetensors", config=config)


SCRIPT = """
import sys
from pathlib import Path
from miewid_core.config import preset
from miewid_core.readers.load import load_catalog
from miewid_core.runs.run import Training

config = preset("demo", image_size=32, batch_size=8, epochs=6, warmup_epochs=1)
if __name__ == "__main__":
    photos = load_catalog(sys.argv[1])
    folder = Path(sys.argv[2])
    print(Training("t", photos, config, 0, folder / "runs", folder / "chips").run().folder)
"""


@pytest.mark.slow
def test_killed_training_ends_with_the_same_bits(small_catalog, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(name):
        command = [sys.executable, str(script), str(small_catalog), str(tmp_path / name)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    undisturbed = start("undisturbed").communicate()[0].strip()
    killed = start("killed")
    wait_for(tmp_path / "killed" / "runs", "checkpoint.safetensors")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not list((tmp_path / "killed").glob("runs/*/run.json"))
    resumed = start("killed").communicate()[0].strip()
    first, second = (load_file(f"{run}/weights.safetensors") for run in (undisturbed, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def wait_for(folder, name):
    for _ in range(2400):  # two minutes: the packages are loaded first, on a busy machine slowly
        if list(folder.glob(f"*/{name}")):
            return
        time.sleep(0.05)
    raise TimeoutError(f"no {name} appeared in {folder}")


def tuned(photos, folder, name, config, start):
    counts = np.full(photos["individual"].nunique(), 4)
    data = dataset_of(photos, folder)
    where = folder / name, "test", torch.device("cpu"), 0
    return fit(data, counts, config, 0, *where, start=start)


@pytest.fixture
def start(photos, tmp_path):
    """Weights of a network trained on the first species."""
    network, preprocess, _ = fitted(photos[photos["species"] == "ant"], tmp_path, "ant")
    model.save(network, preprocess, tmp_path / "ant.safetensors")
    return tmp_path / "ant.safetensors"


def test_the_head_alone_has_its_rate_and_then_the_schedule_begins():
    fields = dataclasses.asdict(preset("paper", warmup_epochs=0, peak_rate=1.5e-4))
    config = FineTuneConfig(**fields, frozen_epochs=6, head_rate=1e-3)
    rates = [learning_rate(config, epoch) for epoch in range(30)]
    assert rates[:7] == [1e-3] * 6 + [1.5e-4]
    np.testing.assert_allclose(np.divide(rates[7:], rates[6:-1]), 0.8)


@pytest.mark.parametrize("schedule", ["paper", "released"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_authors_fine_tuning_runs_the_schedule_twice(name, schedule):
    """Three epochs of the head, then all of the schedule from its beginning."""
    whole = preset(name, schedule=schedule)
    config = fine_tuning(whole)
    assert (config.frozen_epochs, config.batchnorm_adapts) == (3, True)
    assert config.epochs == whole.epochs + 3
    rates = [learning_rate(config, epoch) for epoch in range(config.epochs)]
    expected = [learning_rate(whole, epoch) for epoch in [*range(3), *range(whole.epochs)]]
    assert rates == expected


def test_a_frozen_network_stays_as_it_was_while_its_head_learns(photos, tmp_path, start):
    bees = photos[photos["species"] == "bee"]
    fields = dataclasses.asdict(TINY) | {"epochs": 20}
    frozen = FineTuneConfig(**fields, frozen_epochs=20, head_rate=0.01)
    network, _, history = tuned(bees, tmp_path, "frozen", frozen, start)
    assert same(network, model.load(start)[0])  # BatchNorm's statistics too
    assert history["loss"].iloc[-5:].max() < history["loss"].iloc[:5].min()
    thawed = FineTuneConfig(**fields, frozen_epochs=2, head_rate=0.01)
    assert not same(tuned(bees, tmp_path, "thawed", thawed, start)[0], network)


def test_a_frozen_network_takes_the_new_photos_statistics_where_it_is_to(photos, tmp_path, start):
    """As in the authors' code: every parameter as it was, BatchNorm's statistics not."""
    bees = photos[photos["species"] == "bee"]
    fields = dataclasses.asdict(TINY)
    config = FineTuneConfig(**fields, frozen_epochs=3, head_rate=0.01, batchnorm_adapts=True)
    network, before = tuned(bees, tmp_path, "adapted", config, start)[0], model.load(start)[0]
    after = network.state_dict()
    changed = {name for name, value in before.state_dict().items() if not value.equal(after[name])}
    assert {name.rpartition(".")[2] for name in changed} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A file of weights, as a pretrained backbone has."""
    path = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file(model.MiewIDNet(TINY.backbone).backbone.state_dict(), path)
    return str(path)


def test_frozen_stages_stay_as_they_are_and_the_others_learn(photos, tmp_path, pretrained):
    def ended(stages, epochs):
        changes = {"frozen_stages": stages, "epochs": epochs, "pretrained": pretrained}
        config = dataclasses.replace(TINY, **changes)
        network, _, _ = fitted(photos, tmp_path, f"{stages} {epochs}", config=config)
        return network.state_dict()

    start, end, free = ended(2, 0), ended(2, 2), ended(0, 2)
    moved = {name for name in start if not torch.equal(start[name], end[name])}
    learned = {name for name in start if not torch.equal(start[name], free[name])}
    still = ("backbone.conv_stem.", "backbone.bn1.", "backbone.blocks.0.")  # statistics as well
    assert moved == {name for name in learned if not name.startswith(still)}
    assert {name.rsplit(".", 1)[0] for name in moved} >= {"bn", "backbone.blocks.1.0.bn1"}
    assert any(name.startswith(still) for name in learned)


def test_nothing_is_frozen_that_was_never_trained(photos, tmp_path):
    frozen = dataclasses.replace(TINY, frozen_stages=2, epochs=1)
    network, _, _ = fitted(photos, tmp_path, "frozen", config=frozen)
    free = dataclasses.replace(TINY, epochs=1)
    assert same(network, fitted(photos, tmp_path, "free", config=free)[0])


def test_more_frozen_stages_than_a_backbone_has_are_refused(photos, tmp_path, pretrained):
    config = dataclasses.replace(TINY, frozen_stages=6, pretrained=pretrained)
    with pytest.raises(ValueError, match="test_efficientnet has 6 stages"):
        fitted(photos, tmp_path, "all", config=config)


def test_adam_begins_anew_when_the_whole_network_learns(photos, tmp_path, start, monkeypatch):
    steps, step = [], training.Trainer.step

    def watched(self, *arguments):
        done = step(self, *arguments)
        steps.append(int(self.optimizer.state[self.head.weight]["step"]))
        return done

    monkeypatch.setattr(training.Trainer, "step", watched)
    config = FineTuneConfig(**dataclasses.asdict(TINY), frozen_epochs=1, head_rate=0.01)
    tuned(photos[photos["species"] == "bee"], tmp_path, "anew", config, start)
    epoch = len(steps) // TINY.epochs
    assert steps == [*range(1, epoch + 1), *range(1, 2 * epoch + 1)]


def test_a_stopped_fine_tuning_ends_with_the_same_bits(photos, tmp_path, start, monkeypatch):
    bees = photos[photos["species"] == "bee"]
    config = FineTuneConfig(**dataclasses.asdict(TINY) | {"epochs": 4}, frozen_epochs=2)
    whole, _, _ = tuned(bees, tmp_path, "whole", config, start)
    for stop in (1, 3):  # within the frozen epochs, and after them
        with monkeypatch.context() as patched:
            patched.setattr(training.Trainer, "epoch", _stopping(training.Trainer.epoch, stop))
            with pytest.raises(KeyboardInterrupt):
                tuned(bees, tmp_path, "stopped", config, start)
    resumed, _, history = tuned(bees, tmp_path, "stopped", config, start)
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert same(whole, resumed)


def test_a_start_of_another_network_is_refused(photos, tmp_path, start):
    config = fine_tuning(dataclasses.replace(TINY, backbone="test_vit"))
    with pytest.raises(ValueError, match="does not fit"):
        tuned(photos, tmp_path, "other", config, start)


def cut(size):
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def with_tensors(**tensors):
    """Other tensors (None for one too few), with the checksum that belongs to them."""

    def change(path):
        kept = {k: v for k, v in (load_file(path) | tensors).items() if v is not None}
        write_checked(path, {key: value.numpy() for key, value in kept.items()}, history="[]")

    return change


DAMAGES = {  # what is done to a checkpoint, and what is said of it
    "cut short": (cut(-99), "is damaged"),
    "no history": (lambda path: save_file(load_file(path), path), "its checksum is another"),
    "a tensor too few": (with_tensors(**{"model.pooling.p": None}), "missing pooling.p"),
    "a tensor too many": (with_tensors(**{"model.x": torch.zeros(1)}), "unexpected x"),
    "another shape": (with_tensors(**{"model.pooling.p": torch.zeros(2)}), r"has shape \(2,\)"),
    "other individuals": (with_tensors(**{"head.margins": torch.zeros(9)}), r"has shape \(9,\)"),
    "no number": (with_tensors(**{"model.pooling.p": torch.full((1,), np.nan)}), "not finite"),
}


@pytest.fixture(scope="module")
def stopped(small_catalog, tmp_path_factory):
    """The checkpoint of a training stopped after one epoch, and a whole one's network."""
    folder, photos = tmp_path_factory.mktemp("stopped"), load_catalog(small_catalog)
    whole, _, _ = fitted(photos, folder, "whole.safetensors")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training.Trainer, "epoch", _stopping(training.Trainer.epoch, 1))
        with pytest.raises(KeyboardInterrupt):
            fitted(photos, folder, "stopped.safetensors")
    return folder / "stopped.safetensors", whole


@pytest.mark.parametrize(("damage", "text"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_told_by_name(stopped, tmp_path, damage, text):
    path = shutil.copy(stopped[0], tmp_path / "checkpoint.safetensors")
    trainer = training.Trainer(np.full(6, 4), TINY, 0, torch.device("cpu"))
    trainer.load(path)
    assert len(trainer.history) == 1
    damage(path)
    with pytest.raises(ValueError, match=rf"{path} .*{text}"):
        trainer.load(path)


@pytest.mark.parametrize("damage", [cut(99), DAMAGES["other individuals"][0]])
def test_from_a_damaged_checkpoint_a_training_begins_anew(
    stopped, photos, tmp_path, capsys, damage
):
    path = shutil.copy(stopped[0], tmp_path / "checkpoint.safetensors")
    damage(path)
    network, _, history = fitted(photos, tmp_path, path.name)
    assert f"test begins anew: {path}" in capsys.readouterr().out
    assert same(network, stopped[1])
    assert len(history) == 3


@pytest.mark.parametrize(("most", "expected"), [(0, 3), (training.SMALL, 1)])
def test_small_batches_are_trained_by_one_thread(
    photos, tmp_path, monkeypatch, threads, most, expected
):
    """So that no number of cores changes the bits; whoever asked has as many threads afterwards."""
    seen, epoch = [], training.Trainer.epoch

    def watched(trainer, *given):
        seen.append(torch.get_num_threads())
        return epoch(trainer, *given)

    monkeypatch.setattr(training.Trainer, "epoch", watched)
    monkeypatch.setattr(training, "SMALL", most)
    threads(3)
    fitted(photos, tmp_path, "run")
    assert set(seen) == {expected}
    assert torch.get_num_threads() == 3


def test_an_epoch_shows_as_many_photos_as_asked_and_each_as_often(photos, tmp_path):
    dataset = ChipDataset(*stored(photos, tmp_path), augment=True, epoch_photos=60)
    assert len(dataset) == 60
    shown = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        shown += [dataset[index][1] for index in range(60)]
    assert sorted(shown) == sorted([*range(24)] * 5)  # 120 of 24 photos
    assert not dataset[0][0].equal(dataset[24][0])  # one photo twice in an epoch, augmented anew


def test_a_plain_loop_over_chips_ends(photos, tmp_path):
    assert [label for _, label in ChipDataset(*stored(photos, tmp_path))] == [*range(len(photos))]


def stored(photos, folder):
    store = ChipStore(folder / "chips", 32)
    return store, store.build(photos).tolist(), np.arange(len(photos))
