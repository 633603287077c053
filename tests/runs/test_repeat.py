"""A run's folder is enough to train it again, and to see whether the same comes out."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from miewid_core import __main__
from miewid_core.chips import ChipStore
from miewid_core.config import fine_tuning, preset
from miewid_core.model import MiewIDNet
from miewid_core.readers.load import load_catalog
from miewid_core.runs import multi_gpu, repeat
from miewid_core.runs.run import Run, Training

TINY = preset("demo", image_size=32, batch_size=8, epochs=2, warmup_epochs=0)


@pytest.fixture(scope="module")
def trained(small_catalog, tmp_path_factory):
    """A folder with chips and runs: one of the ants, and one fine-tuned from it to the bees."""
    folder = tmp_path_factory.mktemp("trained")
    photos = load_catalog(small_catalog)
    where = folder / "runs", folder / "chips"
    ants, bees = (photos[photos["species"] == name] for name in ("ant", "bee"))
    first = Training("the ants", ants, TINY, 0, *where).run()
    config = fine_tuning(dataclasses.replace(TINY, epochs=2))
    return folder, first, Training("the bees", bees, config, 1, *where, first).run()


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that folder's runs."""
    shutil.copytree(trained[0] / "runs", tmp_path / "runs")
    return [Run(tmp_path / "runs" / run.folder.name) for run in trained[1:]]


def rewrite(run, **changes):
    """Change fields of run.json, or of the spec in it."""
    told = run.record
    for name, value in changes.items():
        (told["spec"] if name in told["spec"] else told)[name] = value
    (run.folder / "run.json").write_text(json.dumps(told))


def command(capsys, *arguments):
    """Exit status of the command line, and what it says."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(["repeat", *map(str, arguments)])
    told = capsys.readouterr()
    return ended.value.code, told.out + told.err.rpartition("usage:")[2]


@pytest.mark.parametrize("which", [1, 2])
def test_a_run_is_repeated_bit_by_bit(trained, tmp_path, which):
    run = trained[which]
    again = repeat.repeat(run, tmp_path / "again", trained[0] / "chips")
    assert again.folder.name == run.folder.name
    assert again.folder != run.folder
    assert repeat.differences(run, again).empty
    assert repeat.causes(run, again) == []
    assert again.weights.read_bytes() == run.weights.read_bytes()
    assert again.history.equals(run.history)
    assert again.rows.equals(run.rows)


def test_the_command_says_that_they_are_equal(trained, capsys):
    status, told = command(capsys, trained[1].folder, "--chips", trained[0] / "chips")
    assert status == 0
    assert "equal: every tensor of the weights, bit by bit" in told
    assert "differs" not in told


def test_what_differs_is_said_of_equal_ones_too(copied, trained, capsys):
    rewrite(copied[0], timm="0.1")
    status, told = command(capsys, copied[0].folder, "--chips", trained[0] / "chips")
    assert status == 0
    assert "bit by bit\nwhat differs else: timm 0.1, then " in told


def test_another_seed_in_the_record_is_found(copied, trained, capsys):
    rewrite(copied[0], seed=5)
    status, told = command(capsys, copied[0].folder, "--chips", trained[0] / "chips")
    assert status == 1
    assert "NOT equal: " in told
    assert "its folder isn't named by its spec: run.json" in told
    again = repeat.repeat(copied[0], copied[0].folder.parent / "more", trained[0] / "chips")
    first, second = (load_file(run.weights) for run in (copied[0], again))
    found = repeat.differences(copied[0], again)
    for name, tensor in first.items():
        largest = np.abs(tensor.numpy().astype(float) - second[name].numpy()).max()
        assert found.get(name, 0.0) == largest
    assert found.is_monotonic_decreasing


def test_what_the_training_was_made_with_is_compared(copied, trained, tmp_path):
    rewrite(copied[0], torch="1.0", threads="1", recipe=0, instructions="none, all")
    before = torch.get_num_threads()
    again = repeat.repeat(copied[0], tmp_path / "again", trained[0] / "chips")
    assert torch.get_num_threads() == before
    assert again.record["threads"] == "1"
    told = repeat.causes(copied[0], again)
    assert f"torch 1.0, then {torch.__version__}" in told
    capability = torch.backends.cpu.get_cpu_capability()
    assert any(line.startswith(f"instructions none, all, then {capability}, ") for line in told)
    assert "recipe of the spec" in told
    assert not [line for line in told if "threads" in line]


def test_any_bit_counts(trained, copied):
    """Minus zero and no number too, which == takes for equal, or for different from itself."""
    file = copied[0].folder / "weights.safetensors"
    tensors = load_file(file)
    rewrite(copied[0], format=0, files={})
    told = copied[0].record
    del told["format"], told["files"]
    (copied[0].folder / "run.json").write_text(json.dumps(told))
    save_file(tensors, file)
    assert repeat.differences(trained[1], copied[0]).empty
    name = "bn.running_mean"
    for value, difference in ((-0.0, 0.0), (float("nan"), float("inf")), (3.0, 3.0)):
        changed = tensors[name].clone()
        changed[0] = value
        zero = changed.clone()
        zero[0] = 0.0
        save_file(tensors | {name: changed}, file)
        other = Run(shutil.copytree(copied[0].folder, copied[0].folder.with_name(f"{value}")))
        save_file(tensors | {name: zero}, other.folder / "weights.safetensors")
        assert repeat.differences(copied[0], other).to_dict() == {name: difference}
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    assert repeat.differences(trained[1], copied[0]).to_dict() == {name: float("inf")}


def test_missing_chips_are_made_from_the_catalog(trained, small_catalog, tmp_path, capsys):
    chips = tmp_path / "chips"
    status, told = command(capsys, trained[1].folder, "--chips", chips)
    assert status == 2
    assert f"12 of 12 chips of 32 px are not in {chips}: give" in told
    assert f"has the annotations {trained[1].rows['annotation_id'][0]}" in told
    arguments = trained[1].folder, "--chips", chips, "--catalog", small_catalog
    assert command(capsys, *arguments)[0] == 0
    key = trained[1].rows["chip"][3]
    ChipStore(chips, 32).path(key).unlink()
    assert "1 of 12 chips" in command(capsys, trained[1].folder, "--chips", chips)[1]


def test_a_fine_tuned_run_needs_its_start(trained, tmp_path, capsys):
    alone = shutil.copytree(trained[2].folder, tmp_path / "runs" / trained[2].folder.name)
    status, told = command(capsys, alone, "--chips", trained[0] / "chips")
    assert status == 2
    assert f"was fine-tuned from {trained[1].folder.name}: put that run's folder beside it" in told


def test_a_run_that_began_with_a_weights_file_needs_it(photos, tmp_path, capsys):
    files = [tmp_path / f"{name}.safetensors" for name in ("right", "wrong")]
    for number, file in enumerate(files):
        torch.manual_seed(number)
        save_file(MiewIDNet(TINY.backbone).backbone.state_dict(), file)
    config = dataclasses.replace(TINY, pretrained=str(files[0]), epochs=1)
    chips = tmp_path / "chips"
    run = Training("t", photos, config, 0, tmp_path / "runs", chips).run()
    arguments = run.folder, "--chips", chips, "--pretrained"
    assert (
        "give the weights file that it began with, sha256:"
        in command(capsys, *arguments, tmp_path / "none.safetensors")[1]
    )
    assert "it began with sha256:" in command(capsys, *arguments, files[1])[1]
    files[0].rename(tmp_path / "moved.safetensors")
    assert command(capsys, *arguments, tmp_path / "moved.safetensors")[0] == 0


def test_a_repetition_is_kept_where_it_is_asked_for(trained, tmp_path, capsys, monkeypatch):
    arguments = trained[1].folder, "--chips", trained[0] / "chips", "--into", tmp_path / "kept"
    assert command(capsys, *arguments)[0] == 0
    assert (tmp_path / "kept" / trained[1].folder.name / "run.json").exists()
    monkeypatch.setattr(multi_gpu, "fit", None)
    assert command(capsys, *arguments)[0] == 0  # found there
    where = trained[1].folder, "--chips", trained[0] / "chips", "--into", trained[0] / "runs"
    status, told = command(capsys, *where)
    assert status == 2
    assert "is where the run itself lies: choose another folder" in told


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda run: (run.folder / "rows.csv").write_text("annotation_id\n"), "rows.csv is not"),
        (lambda run: (run.folder / "weights.safetensors").unlink(), "weights.safetensors is gone"),
        (lambda run: (run.folder / "run.json").unlink(), "no finished training lies there"),
        (lambda run: rewrite(run, config=run.record["spec"]["config"] | {"x": 1}), "none of this"),
        (lambda run: rewrite(run, format=99), "newer miewid_core: update this package"),
    ],
)
def test_what_cannot_be_repeated_is_said(copied, trained, capsys, monkeypatch, change, text):
    change(copied[0])
    monkeypatch.setattr(multi_gpu, "fit", None)  # before anything is trained
    status, told = command(capsys, copied[0].folder, "--chips", trained[0] / "chips")
    assert status == 2
    assert text in told
