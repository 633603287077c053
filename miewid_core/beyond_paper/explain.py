"""Why this match? The places of two photos that carry their similarity, and how true that is."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.patches import ConnectionPatch
from sklearn.preprocessing import normalize
from torch import nn
from torch.utils.data import Dataset

from miewid_core import evaluation, model
from miewid_core.beyond_paper.embeddings import Embeddings
from miewid_core.beyond_paper.identify import panels
from miewid_core.beyond_paper.threshold import searches
from miewid_core.chips import ChipStore
from miewid_core.demo.draw import anatomy
from miewid_core.figures import BLUE, COLOURS, GREY, MARKERS, PAGE, Figure, styled
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet
from miewid_core.paper.intervals import by_species
from miewid_core.photos import crop, resize

CELL = 8  # pixels of a place's side
STEPS = 8  # from the blurred image to the image
MAPS = "relevance", "detail", "Grad-CAM", "centre", "random"
GREYED = 0.1, 0.2, 0.3, 0.5  # shares of a chip
DRAWS = 1000  # of a bootstrap
QUERIES = "as it is", "mirrored", "animal greyed"
GREY_PIXEL = (124, 116, 104)  # ImageNet's mean
MOST = 500  # altered queries


def relevance(
    network: MiewIDNet, images: torch.Tensor, others: torch.Tensor, cell: int = CELL
) -> torch.Tensor:
    """How much the detail at each place of B images adds to their cosine similarity to `others`.

    `images`: (B, 3, S, S), preprocessed; `others`: (B, D) embeddings. Returns (B, S / cell, S /
    cell), which sums to the similarity that an image gains over itself blurred, when its pattern is
    gone (integrated gradients, Sundararajan et al. 2017).
    """
    blurred, slopes = without_detail(images), torch.zeros_like(images)
    for step in range(STEPS):
        point = (blurred + (step + 0.5) / STEPS * (images - blurred)).requires_grad_()
        with torch.enable_grad():
            similar = F.cosine_similarity(network(point), others).sum()
            slopes += torch.autograd.grad(similar, point)[0]
    return _summed((images - blurred) * slopes / STEPS, cell)


def _summed(values: torch.Tensor, cell: int) -> torch.Tensor:
    """(B, C, S, S) summed over channels and cells, (B, S / cell, S / cell)."""
    summed = values.sum(1, keepdim=True)
    return F.avg_pool2d(summed, cell, ceil_mode=True, divisor_override=1)[:, 0]


def without_detail(images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, S, S) averaged over squares of a quarter of their side: colours stay."""
    reach = images.shape[-1] // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)


def grad_cam(network: MiewIDNet, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of the similarity at the last map (Selvaraju et al. 2017), to compare: (B, h, w)."""
    features = _seen(network, network.pooling, images)[0].requires_grad_()
    with torch.enable_grad():
        similar = F.cosine_similarity(network.bn(network.pooling(features)), others).sum()
        slopes = torch.autograd.grad(similar, features)[0]
    return (features * slopes.mean((2, 3), keepdim=True)).sum(1).clamp(min=0).detach()


def lines(
    network: MiewIDNet, images: torch.Tensor, maps: torch.Tensor, count: int = 8
) -> list[tuple[int, int]]:
    """The best pairs of corresponding places of two images, at most `count`, best first.

    `images`: (2, 3, S, S); `maps`: (2, h, w), of `relevance`. The two places of a pair are each
    other's most similar ones; pairs are ordered by that similarity times their relevance. Places
    count row by row. For CNNs, whose stages timm names.
    """
    size = maps.shape[1:]
    features = F.interpolate(_stage(network, images, CELL), size, mode="bilinear").flatten(2)
    features = F.normalize(features - features.mean((0, 2), keepdim=True), dim=1)
    similar = features[0].T @ features[1]  # (h * w, h * w)
    there, back, places = similar.argmax(1), similar.argmax(0), torch.arange(similar.shape[0])
    strength = maps.flatten(1).clamp(min=0).sqrt()
    weight = similar[places, there] * strength[0] * strength[1][there]
    weight[back[there] != places] = 0
    best = weight.argsort(descending=True)[:count]
    least = max(weight.max() / 10, 1e-12)  # lines between places that carry little say nothing
    return [(int(place), int(there[place])) for place in best if weight[place] >= least]


def _stage(network: MiewIDNet, images: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, C, h, w) from the last stage of a CNN whose stride is at most `stride`."""
    stages = network.backbone.feature_info
    name = [stage["module"] for stage in stages if stage["reduction"] <= stride][-1]
    return _seen(network, network.backbone.get_submodule(name), images)[1]


def _seen(
    network: MiewIDNet, module: nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module of the network is given, and what it returns, for these images."""
    kept = []
    hook = module.register_forward_hook(lambda _, given, output: kept.extend([*given, output]))
    with torch.no_grad():
        network(images)
    hook.remove()
    return kept[0], kept[-1]


def pairs(tested: Embeddings, count: int, seed: int) -> pd.DataFrame:
    """Random queries, each with its nearest photo of its individual and of another: row numbers.

    Columns query, right, wrong: of `tested`. Pairs are of one species and not of one encounter;
    a query without a right one doesn't count.
    """
    rows, unit = tested.rows, normalize(tested.vectors)
    drawn = np.random.default_rng(seed).permutation(len(rows))
    found = []
    for query in drawn:
        own = rows["individual"] == rows["individual"][query]
        burst = (rows["encounter"] == rows["encounter"][query]) & (rows["encounter"] != "")
        kept = (rows["species"] == rows["species"][query]) & ~burst & (rows.index != query)
        cosine = unit @ unit[query]
        if (own & kept).any() and (kept & ~own).any():
            best = [int(np.where(mask & kept, cosine, -2).argmax()) for mask in (own, ~own)]
            found.append([int(query), *best])
        if len(found) == count:
            break
    return pd.DataFrame(found, columns=["query", "right", "wrong"])


def measure(
    network: MiewIDNet,
    images: torch.Tensor,
    others: torch.Tensor,
    parts: torch.Tensor | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How good each of MAPS is for B pairs of `images` with `others` (see `relevance`).

    `parts`: (B, 2, S, S), 1 where the animal is, and where its coat differs between individuals.
    Returns one row per pair and map: map, pair (its number); animal, pattern (shares of the area;
    the pattern's is of the animal), on_animal, on_pattern (shares of the relevance); similarity,
    and that when the most relevant shares of the image are grey (greyed_10 for 10 %, ...).
    """
    shares = None if parts is None else F.avg_pool2d(parts, CELL, ceil_mode=True)
    similarity = _similarity(network, images, others)
    tables = []
    for name, found in _maps(network, images, others, seed).items():
        kept = found.clamp(min=0) + 1e-12  # what speaks for the match
        table = pd.DataFrame({"map": name, "pair": range(len(images)), "similarity": similarity})
        if shares is not None:
            area = shares.sum((2, 3)).numpy()
            on = (shares * kept[:, None]).sum((2, 3)).numpy()
            table["animal"] = area[:, 0] / shares[0, 0].numel()
            table["on_animal"] = on[:, 0] / kept.sum((1, 2)).numpy()
            table["pattern"], table["on_pattern"] = area[:, 1] / area[:, 0], on[:, 1] / on[:, 0]
        for share in GREYED:
            greyed = images * ~_most_relevant(found, share, images.shape[-1])  # 0 is grey
            table[f"greyed_{100 * share:.0f}"] = _similarity(network, greyed, others)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _maps(
    network: MiewIDNet, images: torch.Tensor, others: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """MAPS, (B, h, w) each: what is measured, and what it has to be better than."""
    ours = relevance(network, images, others)
    size = ours.shape[1:]
    down, along = (torch.linspace(-1, 1, side) for side in size)
    centre = torch.exp(-2 * (down[:, None] ** 2 + along**2))  # a deviation of a quarter of the side
    cam = F.interpolate(grad_cam(network, images, others)[:, None], size, mode="bilinear")[:, 0]
    detail = _summed((images - without_detail(images)) ** 2, CELL)
    drawn = torch.rand(ours.shape, generator=torch.Generator().manual_seed(seed))
    return dict(zip(MAPS, [ours, detail, cam, centre.expand_as(ours), drawn], strict=True))


def _most_relevant(maps: torch.Tensor, share: float, side: int) -> torch.Tensor:
    """(B, 1, side, side) bool: the cells of highest value that are this share of all."""
    flat = maps.flatten(1)
    top = flat.topk(round(share * flat.shape[1])).indices
    chosen = torch.zeros_like(flat).scatter_(1, top, 1).view(-1, 1, *maps.shape[1:])
    return F.interpolate(chosen, scale_factor=CELL)[..., :side, :side] > 0


@torch.no_grad()
def _similarity(network: MiewIDNet, images: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    return F.cosine_similarity(network(images), others).numpy()


def quality(
    weights: Path | str,
    tested: Embeddings,
    photos: pd.DataFrame,
    chips_dir: Path,
    drawn: bool,
    count: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """How good MAPS are for `count` right and as many wrong matches: the table of `summary`.

    `tested`: embeddings by the network of `weights`, of photos that it hasn't learned; `photos`:
    catalog rows of these and others. `drawn`: whether they show drawn animals, of which it is known
    where they are.
    """
    network, preprocess = model.load(weights)
    network.requires_grad_(False)
    found, store = pairs(tested, count, seed), ChipStore(chips_dir, preprocess.size)
    if found.empty:
        return pd.DataFrame(columns=["map", "match", "pairs"])
    rows = tested.rows.iloc[found["query"]]
    chips = np.stack([store.read(key) for key in rows["chip"]])
    images = preprocess.batch(torch.from_numpy(chips))
    parts = None
    if drawn:
        shown = photos.set_index("annotation_id", drop=False).loc[rows["annotation_id"]]
        parts = torch.from_numpy(np.stack([*chip_parts(shown, preprocess.size)]))
    tables = []
    for match in ("right", "wrong"):
        others = torch.from_numpy(tested.vectors[found[match]])
        measured = measure(network, images, others, parts, seed).assign(match=match)
        measured["individual"] = rows["individual"].to_numpy()[measured["pair"]]
        tables.append(measured)
    return summary(pd.concat(tables, ignore_index=True))


def chip_parts(photos: pd.DataFrame, size: int) -> Iterator[np.ndarray]:
    """Of the chips of drawn `photos`, (2, size, size) float32: 1 on the animal, on its pattern.

    The pattern is the half of the animal's pixels where coats of its species differ most.
    """
    for row, marks in zip(photos.itertuples(), anatomy(photos), strict=True):
        # turned round, as what lies outside a photo is 255 in a chip
        chip = 255 - resize(crop(255 - marks, (row.x, row.y, row.w, row.h), row.theta), size)
        animal = chip[..., 0] > 127
        varies = chip[..., 1] > np.median(chip[..., 1][animal])
        yield np.stack([animal, animal & varies]).astype(np.float32)


def summary(measured: pd.DataFrame) -> pd.DataFrame:
    """A row for each map and match of `measure`'s rows (with match, individual).

    odds_animal: odds of the relevance on the animal over those of its area, with its 95 % interval
    over individuals; odds_pattern: the same of the pattern within the animal; similarity, greyed_10
    and so on: means.
    """
    rows = []
    for (match, name), own in measured.groupby(["match", "map"], sort=False):
        row = {"map": name, "match": match, "pairs": len(own)}
        if "animal" in own:
            people = own.groupby("individual")[["on_animal", "animal"]]
            sums, counts = people.sum().to_numpy(), people.size().to_numpy()
            draws = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
            means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)[:, None]
            row["odds_animal"] = _odds_ratio(*own[["on_animal", "animal"]].mean())
            ends = np.quantile(_odds_ratio(*means.T), [0.025, 0.975])
            row |= dict(zip(["odds_low", "odds_high"], ends.tolist(), strict=True))
            row["odds_pattern"] = _odds_ratio(*own[["on_pattern", "pattern"]].mean())
        curve = ["similarity", *(f"greyed_{100 * share:.0f}" for share in GREYED)]
        rows.append(row | own[curve].mean().to_dict())
    return pd.DataFrame(rows)


def _odds_ratio(share: np.ndarray | float, area: np.ndarray | float) -> np.ndarray | float:
    share, area = np.clip([share, area], 1e-6, 1 - 1e-6)  # all of it has no finite odds
    return share / (1 - share) / (area / (1 - area))


class Altered(Dataset):
    """Chips of a store, each changed by `change(number, chip)`; items as of a ChipDataset."""

    def __init__(
        self, store: ChipStore, keys: list[str], change: Callable[[int, np.ndarray], np.ndarray]
    ) -> None:
        self.store, self.keys, self.change = store, keys, change

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        chip = self.change(number, self.store.read(self.keys[number]))
        return torch.from_numpy(np.ascontiguousarray(chip)), -1


def altered_queries(
    weights: Path | str,
    tested: Embeddings,
    photos: pd.DataFrame,
    chips_dir: Path,
    drawn: bool,
    seed: int = 0,
) -> pd.DataFrame:
    """Top-1 of queries as they are, mirrored, and with the animal greyed out; in percent.

    Parameters are those of `quality`. At most MOST of `tested` are altered and search all others,
    which aren't. A drawn animal is greyed by its outline. Of a real photo the ellipse that fills
    its box is: greying what `relevance` marks would lower the accuracy whatever the network looks
    at. Columns query, species (the last is the "mean" over species), queries, individuals, top1,
    low, high (95 % interval), chance.
    """
    network, preprocess = model.load(weights, default_device())
    store = ChipStore(chips_dir, preprocess.size)
    chosen = np.random.default_rng(seed).permutation(len(tested.rows))[:MOST]
    asking = tested.of(np.isin(np.arange(len(tested.rows)), chosen))
    shown = photos.set_index("annotation_id", drop=False).loc[asking.rows["annotation_id"]]
    masks = [*_masks(shown, preprocess.size, drawn)]
    changes = {
        QUERIES[1]: lambda number, chip: chip[:, ::-1],
        QUERIES[2]: lambda number, chip: np.where(masks[number], np.uint8(GREY_PIXEL), chip),
    }
    tables = [_top1(asking, tested).assign(query=QUERIES[0])]
    for name, change in changes.items():
        dataset = Altered(store, asking.rows["chip"].tolist(), change)
        vectors = evaluation.embed(network, preprocess, dataset, device=default_device())
        changed = dataclasses.replace(asking, vectors=vectors)
        tables.append(_top1(changed, tested).assign(query=name))
    table = pd.concat(tables, ignore_index=True)
    return table[["query", *table.columns.drop("query")]]


def _masks(photos: pd.DataFrame, size: int, drawn: bool) -> Iterator[np.ndarray]:
    """(size, size, 1) bool for each photo: what is greyed as the animal."""
    if not drawn:
        place = (np.arange(size) + 0.5) / size * 2 - 1
        yield from [(place[:, None] ** 2 + place**2 < 1)[..., None]] * len(photos)
        return
    for animal, _ in chip_parts(photos, size):
        # the outline's blurred edge goes as well
        yield cv2.dilate(animal, np.ones((5, 5)))[..., None] > 0


def _top1(queries: Embeddings, database: Embeddings) -> pd.DataFrame:
    """Top-1 per species with its interval and chance: how often the nearest photo is right."""
    found = searches(queries, database)
    right = (found["true_score"] > found["other_score"].fillna(-2))[found["true_score"].notna()]
    table = by_species(right.astype(float), found)
    table = table.rename(columns={"value": "top1"})
    labels = ("individual", "species", "encounter", "annotation_id")
    ranks = evaluation.one_vs_all(database.vectors, *(database.rows[name] for name in labels))
    ranks = ranks[ranks["annotation_id"].isin(found["annotation_id"])]
    chance = {name: evaluation.random_top_k(own, 1) for name, own in ranks.groupby("species")}
    table["chance"] = table["species"].map(chance)
    table.loc[table.index[-1], "chance"] = table["chance"].mean()
    table[["top1", "low", "high", "chance"]] *= 100
    return table


def altered_in_words(table: pd.DataFrame) -> str:
    """What `altered_queries` tells of what the network looks at."""
    means = table[table["species"] == "mean"].set_index("query")
    if means["top1"].isna().any():
        return "No photo has another one of its individual to be found by."
    words = [f"{name}: {_span(row)}" for name, row in means.iterrows()]
    grey = means.loc[QUERIES[2]]
    if np.isnan(grey["low"]):
        verdict = "Too few queries to say whether the background gives animals away."
    elif grey["low"] > grey["chance"]:
        verdict = (
            "**Without the animal it finds more than chance does:** what is around an animal, or "
            "its outline, gives some away. Compare photos of different places and days."
        )
    else:
        verdict = (
            "With the animal greyed out none is shown to be better than chance: no use of the "
            "background is shown."
        )
    return f"The nearest photo is right for queries {'; '.join(words)}. {verdict}"


def _span(row: pd.Series) -> str:
    span = "" if np.isnan(row["low"]) else f" ({row['low']:.0f} to {row['high']:.0f})"
    return f"{row['top1']:.0f} %{span}, by chance {row['chance']:.0f} %"


def quality_in_words(table: pd.DataFrame) -> str:
    """What a table of `quality` says about the maps of this network."""
    if table.empty:
        return "No photo has both a right and a wrong one to be compared with."
    right = table[table["match"] == "right"].set_index("map")
    ours = right.loc["relevance"]
    curve = ", ".join(f"{name} {row['greyed_20']:.2f}" for name, row in right.iterrows())
    words = (
        f"The similarity of right matches is {ours['similarity']:.2f} on average. With the most "
        f"relevant fifth of a photo greyed out, by each map: {curve}; less is better."
    )
    if "odds_animal" not in table:
        return words + " Where the animal is isn't known of these photos."
    odds = ", ".join(f"{name} {row['odds_animal']:.1f}" for name, row in right.iterrows())
    return (
        f"Odds of relevance on the animal over those of its area, for right matches: {odds}; "
        f"1 is no preference. {words}"
    )


@styled()
def quality_figure(table: pd.DataFrame, title: str) -> Figure:
    """Odds on the animal by map, and similarity as the most relevant places are greyed out."""
    drawn = Figure(title, 2.9, PAGE)
    left, right = drawn.subplots(1, 2, width_ratios=[3, 4])
    shares = [0, *(100 * share for share in GREYED)]
    for number, name in enumerate(MAPS):
        for match, own in table[table["map"] == name].groupby("match"):
            row, hollow = own.iloc[0], match == "wrong"
            look = {"color": COLOURS[number], "marker": MARKERS[number]}
            look["markerfacecolor"] = "white" if hollow else COLOURS[number]
            if "odds_animal" in own:
                place = number + 0.25 * hollow
                left.plot([row["odds_low"], row["odds_high"]], [place] * 2, color=COLOURS[number])
                left.plot(row["odds_animal"], place, linestyle="", **look)
            if not hollow:
                curve = row["similarity" : f"greyed_{100 * GREYED[-1]:.0f}"].astype(float)
                right.plot(shares, curve, label=name, markersize=4, **look)
    left.axvline(1, color=GREY, linewidth=0.8)
    left.set_yticks(range(len(MAPS)), MAPS)
    left.invert_yaxis()
    left.set_xlabel("odds on the animal over those of\nits area (hollow: wrong matches)")
    right.set(xlabel="most relevant share greyed out (%)", ylabel="similarity, right matches")
    if len(table):
        right.legend()
    return drawn


@styled()
def match_figure(
    weights: Path | str,
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    chips_dir: Path,
    title: str,
) -> Figure:
    """A row for each query and its first candidate: chips, relevance, corresponding places.

    The first four are as for `identify.panels`. The redder a place, the more its detail adds to the
    similarity.
    """
    network, preprocess = model.load(weights)
    network.requires_grad_(False)
    matched = queries[queries["annotation_id"].isin(found["query"])]
    rows = panels(found[found["rank"] == 1], matched, known, chips_dir, preprocess.size)
    height = 0.45 + 1.85 * max(1, len(rows))
    drawn = Figure(title, height, PAGE, photos=True)
    drawn.set_layout_engine("none")  # it would lay the title over the first captions
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.65 / height}
    spaces = edges | {"wspace": 0.05, "hspace": 0.15}
    grid = drawn.subplots(max(1, len(rows)), 4, squeeze=False, gridspec_kw=spaces)
    for row, places in zip(rows, grid, strict=False):
        chips = [chip for chip, *_ in row]
        images = preprocess.batch(torch.from_numpy(np.stack(chips)))
        maps = relevance(network, images, network(images).flip(0))
        for axes, chip in zip(places, np.repeat(chips, 2, axis=0), strict=True):
            axes.imshow(chip)
            axes.set_axis_off()
        for axes, map_ in zip(places[1:3], maps.clamp(min=0).numpy(), strict=True):
            strength = map_ / max(map_.max(), 1e-12)
            look = {"cmap": "Reds", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
            size = len(chips[0])
            axes.imshow(strength, alpha=0.8 * strength, extent=(0, size, size, 0), **look)
        for pair in lines(network, images, maps):
            ends = [
                np.array(divmod(place, maps.shape[2]))[::-1] * CELL + CELL / 2 for place in pair
            ]
            across = {"coordsA": places[1].transData, "coordsB": places[2].transData}
            drawn.add_artist(ConnectionPatch(*ends, **across, color=BLUE, linewidth=0.8))
        for axes, (_, caption, right) in zip(places[::3], row, strict=True):
            mark = {True: "right: ", False: "wrong: "}.get(right, "")
            axes.set_title(mark + caption.replace("\n", " "), loc="left", fontsize=7)
    return drawn
