"""Places that carry a similarity: against sums, brute force, Grad-CAM's package, a known truth."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.stats import spearmanr

from miewid_core import evaluation, open_study
from miewid_core.beyond_paper.identify import candidates, explain
from miewid_core.beyond_paper.identify.embeddings import LABELS, Embeddings, embed
from miewid_core.beyond_paper.identify.network import Network
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.demo import draw, draw_animals, scenes
from miewid_core.demo.species import SPECIES
from miewid_core.model import MiewIDNet
from miewid_core.readers.load import load_catalog
from miewid_core.readers.weights import load_model

SIZE = 64


@pytest.fixture(scope="module")
def network():
    """A small network with random weights and the statistics of noise, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MiewIDNet("test_efficientnet")
        for _ in range(20):
            network(torch.randn(16, 3, SIZE, SIZE))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


class Colours(torch.nn.Module):
    """Weighted sums of an image, small beside a constant: its cosines are nearly linear."""

    def __init__(self, seed=0):
        super().__init__()
        weights = torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
        self.weights = torch.nn.Parameter(weights)

    def forward(self, images):
        return torch.arange(8) + 1e-3 * torch.einsum("bchw,dchw->bd", images, self.weights)


def similarity(network, images, others):
    with torch.no_grad():
        return F.cosine_similarity(network(images), others)


def test_a_map_sums_to_the_similarity_that_detail_adds(network, images):
    with torch.no_grad():
        others = network(images.roll(1, 0))
    maps = explain.relevance(network, images, others)
    assert maps.shape == (6, 8, 8)
    blurred = explain.without_detail(images)
    gained = similarity(network, images, others) - similarity(network, blurred, others)
    assert gained.abs().max() > 0.02
    assert maps.sum((1, 2)).tolist() == pytest.approx(gained.tolist(), abs=0.002)


def test_places_that_nothing_depends_on_have_no_relevance(images):
    network = Colours()
    network.weights.data[:, :, :, 32:] = 0
    maps = explain.relevance(network, images, network(images.flip(0)).detach())
    assert maps[:, :, 4:].abs().max() == 0
    assert maps[:, :, :4].abs().min() > 0


def test_occlusion_by_brute_force_ranks_places_alike(images):
    """Each place is replaced by its blurred pixels, one by one, and the similarity measured."""
    network = Colours()
    others = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    maps = explain.relevance(network, images, others)
    blurred, before = explain.without_detail(images), similarity(network, images, others)
    lost = torch.zeros_like(maps)
    for row in range(8):
        for column in range(8):
            covered = images.clone()
            place = ..., slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
            covered[place] = blurred[place]
            lost[:, row, column] = before - similarity(network, covered, others)
    ranks = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(maps, lost, strict=True)]
    assert min(ranks) > 0.9


def test_a_size_that_is_no_multiple_of_the_cell():
    network, image = Colours(), torch.randn(1, 3, 60, 60)
    network.weights.data = network.weights[..., :60, :60]
    maps = explain.relevance(network, image, torch.randn(1, 8))
    assert maps.shape == (1, 8, 8)
    assert explain._most_relevant(maps, 0.5, 60).shape == (1, 1, 60, 60)


def test_grad_cam_is_the_packages(network, images):
    cam = pytest.importorskip("pytorch_grad_cam", reason="of the bench extra")
    with torch.no_grad():
        others = network(images.roll(1, 0))
    targets = [
        lambda output, other=other: F.cosine_similarity(output, other, 0) for other in others
    ]
    wrapped = MiewIDNet("test_efficientnet").eval()
    wrapped.load_state_dict(network.state_dict())
    with cam.GradCAM(wrapped, [wrapped.backbone.bn2]) as package:
        theirs = torch.from_numpy(package(images.clone(), targets))  # (B, S, S), each 0 to 1
    ours = F.interpolate(explain.grad_cam(network, images, others)[:, None], SIZE, mode="bilinear")
    assert ((theirs > 0).any((1, 2)) == (ours > 0).any((1, 2, 3))).all()
    signal = (theirs > 0).any((1, 2))
    assert signal.any()
    for a, b in zip(theirs[signal], ours[signal, 0], strict=True):
        assert np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.99


def test_lines_of_an_image_with_itself_shifted_are_parallel(network):
    image = torch.randn(1, 3, SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(2))
    both = torch.cat([image[..., 16 : 16 + SIZE], image[..., 32 : 32 + SIZE]])
    found = explain.lines(network, both, torch.ones(2, 8, 8), 12)
    assert len(found) == 12
    shifts = [divmod(one, 8)[1] - divmod(two, 8)[1] for one, two in found]
    rows = [divmod(one, 8)[0] - divmod(two, 8)[0] for one, two in found]
    assert np.mean(np.array(shifts) == 2) > 0.8
    assert np.mean(np.array(rows) == 0) > 0.8


@pytest.mark.parametrize("backbone", ["test_efficientnet", "efficientvit_m0", "test_vit"])
def test_lines_avoid_places_without_relevance(images, backbone):
    """The last two have no map as fine as that of relevance."""
    network = MiewIDNet(backbone, image_size=SIZE).eval().requires_grad_(False)
    maps = torch.ones(2, 8, 8)
    maps[:, :, :4] = 0
    found = explain.lines(network, images[:1].repeat(2, 1, 1, 1), maps)
    assert found
    assert all(one == two and one % 8 >= 4 for one, two in found)
    assert explain.lines(network, images[:2], -maps) == []
    cam = explain.grad_cam(network, images[:1], network(images[1:2]))
    assert cam.shape[1] == cam.shape[2]


class Half(torch.nn.Module):
    """Embeds the left half of an image alone, or the right one."""

    def __init__(self, left):
        super().__init__()
        self.part = slice(None, 32) if left else slice(32, None)

    def forward(self, images):
        return images[..., self.part].flatten(1) + 0.1


class TestQuality:
    @pytest.fixture
    def animals(self):
        """An animal in the left half."""
        animals = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
        animals[:, :, :32] = True
        return animals

    @pytest.fixture
    def measured(self, monkeypatch, images, animals):
        """Of one network that sees only the animal, and of one that sees only what is beside it."""
        maps = dict.fromkeys(explain.MAPS[2:3], torch.ones(6, 8, 8))
        monkeypatch.setattr(explain, "grad_cam", lambda *given: maps["Grad-CAM"])
        tables = {}
        for left in (True, False):
            network = Half(left)
            with torch.no_grad():
                others = network(images)
            tables[left] = explain.measure(network, images, others, animals)
        return tables

    def test_where_a_network_looks_is_where_its_relevance_is(self, measured):
        for left, table in measured.items():
            means = table.groupby("map")[["on_animal", "area"]].mean()
            assert means["area"].eq(0.5).all()
            assert means.loc["relevance", "on_animal"] == pytest.approx(float(left), abs=1e-6)
            assert means.loc["random", "on_animal"] == pytest.approx(0.5, abs=0.03)
            assert means.loc["Grad-CAM", "on_animal"] == pytest.approx(0.5)
            assert means.loc["centre", "on_animal"] == pytest.approx(0.5)

    def test_greying_what_is_relevant_costs_most(self, measured):
        curves = measured[True].groupby("map")[["similarity", "greyed_10", "greyed_50"]].mean()
        assert curves["similarity"].to_numpy() == pytest.approx(1)
        assert curves.loc["relevance", "greyed_50"] < 0.2  # nothing of the animal is left
        assert curves["greyed_10"].idxmin() == "relevance"
        assert curves["greyed_50"].idxmin() == "relevance"

    def test_odds_are_those_of_the_means(self, measured):
        table = measured[True].assign(match="right", individual=list("aabbcc") * 5)
        odds = explain.summary(table).set_index("map")
        of = table[table["map"] == "detail"]
        share, area = of["on_animal"].mean(), of["area"].mean()
        wanted = share / (1 - share) / (area / (1 - area))
        assert odds.loc["detail", "odds_animal"] == pytest.approx(wanted)
        assert odds.loc["detail", "odds_low"] < wanted < odds.loc["detail", "odds_high"]
        assert odds.loc["relevance", "odds_animal"] > 1000


def test_pairs_are_the_nearest_right_and_wrong_photo():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"individual": list("aaabbbccd"), "species": ["ant"] * 8 + ["bee"]})
    rows["encounter"] = ["1", "1", "2", "3", "4", "5", "6", "6", "7"]
    rows = rows.assign(annotation_id=[f"{i}" for i in range(9)], chip="")
    tested = Embeddings(rows[LABELS], rng.normal(size=(9, 4)).astype(np.float32), "w", "p")
    found = explain.pairs(tested, 99, 0)
    assert sorted(found["query"]) == [0, 1, 2, 3, 4, 5]  # c has one encounter, d nothing to compare
    unit = tested.vectors / np.linalg.norm(tested.vectors, axis=1, keepdims=True)
    people, bursts = rows["individual"], rows["encounter"]
    for query, right, wrong in found.to_numpy():
        others = [i for i in range(8) if bursts[i] != bursts[query]]
        for match, same in ((right, True), (wrong, False)):
            allowed = [i for i in others if (people[i] == people[query]) == same]
            assert match == max(allowed, key=lambda i: unit[i] @ unit[query])
    assert len(explain.pairs(tested, 3, 0)) == 3


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    """A file like the released ones, not like those of our runs."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(network.state_dict(), path)
    config = {"model_name": "test_efficientnet", "image_size": SIZE}
    path.with_name("config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Drawn photos of one species."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "SPECIES", SPECIES[:1])
        return load_catalog(draw_animals(tmp_path_factory.mktemp("drawn"), scale=0.06))


def of_file(weights, chips_dir):
    """The network of a file, of which nothing more is known."""
    return Network(weights, chips_dir, None, frozenset(), "")


@pytest.mark.slow
def test_of_drawn_animals_all_is_measured(weights, animals, tmp_path):
    tested = embed(weights, animals, tmp_path, tmp_path)
    network = of_file(weights, tmp_path)
    table = explain.quality(network, tested, animals, True, count=8)
    assert table["map"].value_counts().eq(2).all()
    assert set(table["map"]) == set(explain.MAPS)
    assert table.notna().all(axis=None)
    assert table["odds_animal"].between(table["odds_low"], table["odds_high"]).all()
    assert explain.quality_figure(table, "drawn").png()
    words = explain.quality_in_words(table)
    assert "The odds that red lies on the animal" in words
    assert words.endswith(
        f"({table['pairs'].iloc[0]} right and {table['pairs'].iloc[0]} wrong pairs.)"
    )
    altered = explain.altered_queries(network, tested, animals, True)
    assert altered["query"].unique().tolist() == ["unchanged", "mirrored", "animal greyed"]
    assert altered[["top1", "chance"]].notna().all(axis=None)
    for outline in explain.outlines(animals, tested.rows, SIZE):
        assert 0.2 < outline.mean() < 0.7


@pytest.mark.slow
def test_of_real_photos_what_can_be_is_measured(weights, photos, tmp_path, monkeypatch):
    tested, network = embed(weights, photos, tmp_path, tmp_path), of_file(weights, tmp_path)
    table = explain.quality(network, tested, photos, False, count=4)
    monkeypatch.setattr(explain, "AT_ONCE", 1)
    alone = explain.quality(network, tested, photos, False, count=4)
    same = ["map", "match", "pairs", "similarity"]
    pd.testing.assert_frame_equal(table[same], alone[same], rtol=1e-4)
    assert "odds_animal" not in table
    assert "isn't known" in explain.quality_in_words(table)
    assert explain.quality_figure(table, "real").png()
    words = explain.altered_in_words(explain.altered_queries(network, tested, photos, False))
    assert "with the animal greyed out; by chance" in words
    found = candidates.rank(tested, tested, 2)
    panels = candidates.panels(found, photos[:2], photos, tmp_path, SIZE)
    shown = explain.match_figure(weights, [*panels, panels[0][:1]], "one without a candidate")
    assert len(shown.axes) == 8
    maps = explain.overlays(network, found, photos[:2], photos)
    assert list(maps) == photos["annotation_id"].tolist()[:2]
    assert all(places.shape == (2, 8, 8) and places.max() == 1 for places in maps.values())
    assert shown.jpeg()


def test_of_too_few_photos_it_says_so(weights, photos, tmp_path):
    tested, network = embed(weights, photos[:1], tmp_path, tmp_path), of_file(weights, tmp_path)
    table = explain.quality(network, tested, photos, False)
    assert "No photo" in explain.quality_in_words(table)
    assert explain.quality_figure(table, "few").png()
    altered = explain.altered_queries(network, tested, photos, False)
    assert "No photo" in explain.altered_in_words(altered)


def test_colours_that_are_greyed_can_not_be_matched(photos, tmp_path, weights, monkeypatch):
    """Individuals of the small catalog differ in colour, the same all over."""

    class Mean(torch.nn.Module):
        def forward(self, images):
            return images[..., 8:-8, 8:-8].mean((2, 3)) + torch.tensor([0.0, 0.0, 3.0])

    preprocess = load_model(weights)[1]
    monkeypatch.setattr(explain, "load_model", lambda *given: (Mean(), preprocess))
    store = ChipStore(tmp_path, SIZE)
    dataset = ChipDataset(store, store.build(photos))
    vectors = evaluation.embed(Mean(), preprocess, dataset)
    rows = photos.assign(chip=store.build(photos))[LABELS]
    tested = Embeddings(rows, vectors, "w", "p")
    table = explain.altered_queries(of_file("", tmp_path), tested, photos, False)
    means = table[table["species"] == "mean"].set_index("query")["top1"]
    assert means["unchanged"] == means["mirrored"] == 100
    assert means["animal greyed"] < 60


def paint_coats_on_walls(monkeypatch):
    """From now on all animals are grey, and behind each hangs what else were its coat, enlarged."""
    coat, frame = draw.coat_of, draw._frame

    def grey(*key):
        body = coat(*key).copy()
        body[..., :3] = 124
        return body

    def before_its_wall(seed, key, place):
        wall = coat(seed, *key[:3])[40:144, 80:240, :3]
        return frame(seed, key, cv2.resize(wall, scenes.SIZE).astype(np.float32))

    monkeypatch.setattr(draw, "coat_of", grey)
    monkeypatch.setattr(draw, "_frame", before_its_wall)


@pytest.mark.slow
def test_a_network_that_learned_places_is_told_from_one_that_learned_coats(tmp_path, monkeypatch):
    """Half a minute of training each. Both are tested on other photos of animals and places."""
    monkeypatch.setattr(draw, "SPECIES", SPECIES[:1])
    odds, top1, words = {}, {}, {}
    for learned in ("coats", "places"):
        if learned == "places":
            paint_coats_on_walls(monkeypatch)
        folders = {name: str(tmp_path / name) for name in ("figures_dir", "runs_dir")}
        study = open_study(str(draw_animals(tmp_path / learned)), epochs=20, **folders)
        network = of_file(study.run([study.multi()])[0].weights, study.chips_dir)
        shown = network, network.embed(study.test), study.test, True
        quality, altered = explain.quality(*shown), explain.altered_queries(*shown)
        odds[learned] = quality.set_index(["map", "match"]).loc[("relevance", "right")]
        top1[learned] = altered[altered["species"] == "mean"].set_index("query")
        words[learned] = explain.quality_in_words(quality), explain.altered_in_words(altered)
    chance = top1["coats"]["chance"].iloc[0]
    assert odds["coats"]["odds_low"] > 2
    assert odds["places"]["odds_high"] < 1
    assert top1["coats"]["low"]["unchanged"] > 20 * chance
    assert top1["places"]["low"]["unchanged"] > 5 * chance
    assert top1["coats"]["low"]["animal greyed"] < chance
    assert top1["places"]["top1"]["animal greyed"] > top1["places"]["top1"]["unchanged"] / 2
    assert "**the network looks at the background" not in words["coats"][0]
    assert "No use of the background is shown." in words["coats"][1]
    assert "**the network looks at the background no less than" in words["places"][0]
    assert "**Without the animal it finds more than chance does:**" in words["places"][1]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ((4, 3.7, 4.6), (3.8, 3.4, 4.2), "in both, so where red lies doesn't tell them apart"),
        ((4, 3.7, 4.6), (2, 1.8, 2.2), "where red lies helps to tell them apart"),
        ((1.1, 0.9, 1.3), (1, 0.8, 1.2), "looks at the background no less than at the animal"),
    ],
)
def test_words_say_whether_the_red_tells_matches_apart(right, wrong, said):
    names = ["odds_animal", "odds_low", "odds_high"]
    rows = [
        {"map": name, "match": match, "similarity": 0.7, "greyed_20": 0.3, "pairs": 9}
        | dict(zip(names, odds, strict=True))
        for name in ("relevance", "random")
        for match, odds in (("right", right), ("wrong", wrong))
    ]
    assert said in explain.quality_in_words(pd.DataFrame(rows))
