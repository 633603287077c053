"""The map of embeddings: who lies beside whom, and the same whatever the threads; schedules."""

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from miewid_core import MiewIDNet
from miewid_core.chips import augmentation
from miewid_core.config import FLOOR, PRESETS, fine_tuning
from miewid_core.paper.printed import FOLDER
from miewid_core.paper.training_report import (
    PARTS,
    arcface_figure,
    augmented,
    epochs_figure,
    few_individuals,
    in_words,
    network_figure,
    projection,
    schedules,
)


@pytest.fixture
def embedded():
    """Fifty animals of 20 photos each; embeddings (1000, 192) float32 as networks give, photos."""
    rng = np.random.default_rng(0)
    people = np.arange(1000) % 50
    embeddings = rng.normal(size=(50, 192))[people] + rng.normal(0, 0.5, (1000, 192))
    photos = pd.DataFrame({"species": "ant", "individual": people.astype(str)}, range(7, 1007))
    return embeddings.astype(np.float32), photos


@pytest.mark.slow
def test_photos_of_an_animal_lie_together_and_threads_move_none(embedded):
    """scikit-learn's sums of float32 differ by the threads that it may use."""
    with threadpool_limits(1):
        placed = projection(*embedded, seed=0)
    with threadpool_limits(2):
        again = projection(*embedded, seed=0)
    pd.testing.assert_frame_equal(placed, again, check_exact=True)
    assert placed.columns.tolist() == ["x", "y", "species", "individual"]
    assert placed["individual"].tolist() == embedded[1]["individual"].tolist()
    points = placed[["x", "y"]].to_numpy()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = placed["individual"].to_numpy()[apart.argmin(axis=1)]
    assert (nearest == placed["individual"]).mean() > 0.99


def test_the_table_of_a1_against_the_code_says_what_this_code_does():
    table = pd.read_csv(FOLDER / "a1_against_code.csv").set_index("what")
    assert table.columns.tolist() == ["paper", "released", "here", "why"]
    assert not table.isna().any(axis=None)
    level = [name for name, config in PRESETS.items() if config.schedule == "level"]
    assert "a level schedule in `{}` and `{}`".format(*level) in table.loc["learning rate", "here"]
    assert {name for name, config in PRESETS.items() if config.frozen_stages} == {"compact"}
    assert PRESETS["compact"].frozen_stages == 4
    assert "four stages" in table.loc["frozen layers", "here"]
    epochs = [f"{config.epochs} (`{name}`)" for name, config in PRESETS.items()]
    assert all(text in table.loc["epochs", "here"] for text in epochs)
    jitter = [part for part in augmentation(64) if type(part).__name__ == "ColorJitter"]
    strengths = {round(getattr(jitter[0], name)[1] - 1, 3) for name in ("brightness", "contrast")}
    assert strengths | {jitter[0].hue[1]} == {0.2}
    assert table.loc["colour jitter", "here"] == "0.2 for all four"
    assert all(fine_tuning(config).batchnorm_adapts for config in PRESETS.values())
    assert table.loc["fine-tuning", "here"] == "the same"
    assert str(FLOOR) in table.loc["learning rate", "released"].replace("9e-6", "9e-06")


def test_both_schedules_are_drawn_as_their_table_says():
    rates = schedules(PRESETS["paper"])
    peaks = rates.loc[rates.groupby("schedule")["rate"].idxmax()].set_index("schedule")["epoch"]
    assert peaks.to_dict() == {"paper": 16, "released": 8}
    (axes,) = epochs_figure(rates, "A title", "schedule").axes
    assert len(axes.lines) == 2
    for line, (_, own) in zip(axes.lines, rates.groupby("schedule"), strict=True):
        np.testing.assert_allclose(line.get_xydata(), own[["epoch", "rate"]])


def test_the_network_is_drawn_with_the_shapes_that_it_has():
    network = MiewIDNet("test_efficientnet").eval()
    words = [text.get_text() for text in network_figure(network, 64).axes[0].texts]
    steps = ["chip", "backbone", "GeM pooling", "BatchNorm", "embedding"]
    assert [word for word in words if word][:5] == steps
    assert [word for word in words if word][5:] == ["3 x 64 x 64", "256 x 2 x 2", "256", "256"]


def test_both_angles_and_the_margin_are_drawn_where_they_are():
    centers = np.array([[[2.0, 0.0], [-1.0, 1.0], [0.0, -1.0]], [[0.0, 1.0]] * 3])
    (axes,) = arcface_figure(np.array([1.0, 1.0]), centers, 0.4).axes
    *_, point, own, margin, other = (
        np.arctan2(line.get_ydata(), line.get_xdata()) for line in axes.lines
    )
    assert point == pytest.approx(np.pi / 4)
    assert own[[0, -1]] == pytest.approx([0, np.pi / 4])
    assert margin[[0, -1]] == pytest.approx([np.pi / 4, np.pi / 4 + 0.4])
    assert other[[0, -1]] == pytest.approx([np.pi / 4, np.pi / 2])
    named = [line.get_label() for line in axes.lines[-3:]]
    assert named == ["θ = 45°", "m = 23°", "θⱼ = 45°"]


def test_words_say_what_the_training_did():
    gain = "gain_over_untrained"
    row = {"multi": 56.2, "untrained": 19.3, gain: 36.9, f"{gain}_low": 32.5, f"{gain}_high": 41.3}
    scores, history = pd.DataFrame([row] * 3), pd.DataFrame({"loss": [10.3, 8, 5.6]})
    words = in_words(scores, history)
    assert "trained once, is better than the untrained one: top-1 56.2 against 19.3 %" in words
    assert words.endswith(
        "3 epochs of sub-center ArcFace with dynamic margins take the loss from 10.3 to 5.6."
    )


def test_each_part_of_the_augmentation_is_shown_and_changes_the_chip():
    chip = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (first, words, _), *parts = augmented(chip, 0)
    assert words == "as it is"
    np.testing.assert_array_equal(first, chip)
    assert [caption for _, caption, _ in parts[:5]] == [*PARTS.values()]
    assert all((picture != chip).any() for picture, _, _ in parts[:5])
    again = [picture for picture, _, _ in augmented(chip, 0)[1:]]
    assert all((one == other).all() for (one, _, _), other in zip(parts, again, strict=True))


def test_few_individuals_are_those_with_most_photos_of_the_largest_species():
    names = [*"aaabbbbcc", *"xy"]
    photos = pd.DataFrame({"individual": names, "species": ["ant"] * 9 + ["bee"] * 2})
    few = few_individuals(photos, 2)
    assert few["individual"].tolist() == [*"aaabbbb"]
    pd.testing.assert_frame_equal(few, photos.loc[few.index])
