"""Why this match? The places of two photos that carry their similarity, and how true that is."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.patches import ConnectionPatch
from torch import nn

from miewid_core import evaluation, progress
from miewid_core.beyond_paper.identify.candidates import panels
from miewid_core.beyond_paper.identify.embeddings import Embeddings, by_species, nearest
from miewid_core.beyond_paper.identify.network import Network
from miewid_core.beyond_paper.identify.threshold import searches
from miewid_core.chips import ChipStore
from miewid_core.demo.draw import anatomy
from miewid_core.figures import BLUE, COLOURS, GREY, MARKERS, PAGE, Figure, Panel, styled
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.paper import intervals
from miewid_core.paper.comparison import compare
from miewid_core.photos import crop, resize
from miewid_core.readers.weights import load_model

CELL = 8  # pixels of a place's side
STEPS = 8  # from the blurred image to the image
MAPS = "relevance", "detail", "Grad-CAM", "centre", "random"
GREYED = 0.1, 0.2, 0.3, 0.5  # shares of a chip
CURVE = ["similarity", *(f"greyed_{100 * share:.0f}" for share in GREYED)]
DRAWS = 1000  # of a bootstrap
MEAN_PIXEL = np.array([124, 116, 104], np.uint8)  # ImageNet's
MOST = 500  # altered queries
AT_ONCE = 500_000  # pixels of photos whose maps are measured together: two of 440 px
OVERLAID = 100  # queries whose first candidates are explained on the review page


# ---- the map and the lines of a match


def relevance(network: nn.Module, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """How much the detail at each place of B images adds to their cosine similarity to `others`.

    `images`: (B, 3, S, S), preprocessed; `others`: (B, D) embeddings. Returns (B, S / CELL, S /
    CELL), which sums to the similarity that an image gains over itself blurred, when its pattern is
    gone (integrated gradients, Sundararajan et al. 2017).
    """
    blurred, slopes = without_detail(images), torch.zeros_like(images)
    for step in range(STEPS):
        point = (blurred + (step + 0.5) / STEPS * (images - blurred)).requires_grad_()
        with torch.enable_grad():
            similar = F.cosine_similarity(network(point), others).sum()
            slopes += torch.autograd.grad(similar, point)[0]
    return _summed((images - blurred) * slopes / STEPS)


def without_detail(images: torch.Tensor) -> torch.Tensor:
    """Images (B, C, S, S) averaged over squares of a quarter of their side: colours stay."""
    reach = images.shape[-1] // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)


def _summed(values: torch.Tensor) -> torch.Tensor:
    """(B, C, S, S) summed over channels and cells, (B, S / CELL, S / CELL)."""
    summed = values.sum(1, keepdim=True)
    return F.avg_pool2d(summed, CELL, ceil_mode=True, divisor_override=1)[:, 0]


def lines(
    network: MiewIDNet, images: torch.Tensor, maps: torch.Tensor, count: int = 8
) -> list[tuple[int, int]]:
    """The best pairs of corresponding places of two images, at most `count`, best first.

    `images`: (2, 3, S, S); `maps`: (2, h, w), of `relevance`. The two places of a pair are each
    other's most similar ones; pairs are ordered by that similarity times their relevance. Places
    count row by row.
    """
    reductions = [stage["reduction"] for stage in network.backbone.feature_info]
    fine = max(CELL, min(reductions))  # transformers have no map of CELL
    stage = max(place for place, reduction in enumerate(reductions) if reduction <= fine)
    only = {"indices": [stage], "intermediates_only": True}
    (features,) = network.backbone.forward_intermediates(images, **only)
    features = F.interpolate(features, maps.shape[1:], mode="bilinear").flatten(2)
    features = F.normalize(features - features.mean((0, 2), keepdim=True), dim=1)
    similar = (features[0].T @ features[1]).cpu()  # (h * w, h * w)
    there, back, places = similar.argmax(1), similar.argmax(0), torch.arange(similar.shape[0])
    strength = maps.flatten(1).cpu().clamp(min=0).sqrt()
    weight = similar[places, there] * strength[0] * strength[1][there]
    weight[back[there] != places] = 0
    best = weight.argsort(descending=True)[:count]
    least = max(weight.max() / 10, 1e-12)  # lines between places that carry little say nothing
    return [(int(place), int(there[place])) for place in best if weight[place] >= least]


def overlays(
    network: Network, found: pd.DataFrame, queries: pd.DataFrame, known: pd.DataFrame
) -> dict[str, np.ndarray]:
    """For the review page: relevance of a query and of its first candidate's photo, (2, h, w).

    By the query's annotation id, each in [0, 1] of its greatest; of the first OVERLAID queries.
    """
    net, preprocess = _loaded(network.weights)
    best = found[found["rank"] == 1].head(OVERLAID)
    matched = queries[queries["annotation_id"].isin(best["query"])]
    rows = panels(best, matched, known, network.chips_dir, preprocess.size)
    pairs = zip(matched["annotation_id"], progress(rows, "relevance"), strict=True)
    return {query: _pair(net, preprocess, row)[1].cpu().numpy() for query, row in pairs}


def _pair(
    net: MiewIDNet, preprocess: Preprocess, row: Sequence[Panel]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images (2, 3, S, S) of a query and a candidate, and their relevance in [0, 1]."""
    images = _images([chip for chip, *_ in row], preprocess)
    maps = relevance(net, images, net(images).flip(0)).clamp(min=0)
    return images, maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)


@styled()
def match_figure(weights: Path, panels: Sequence[Sequence[Panel]], title: str) -> Figure:
    """A row for each query and its first candidate: chips, relevance, corresponding places.

    `panels`: as for `figures.match_panels`, their chips of the size that the network of `weights`
    takes. The redder a place, the more its detail adds to the similarity.
    """
    net, preprocess = _loaded(weights)
    panels = [row[:2] for row in panels if len(row) > 1]
    height = 0.45 + 1.85 * max(1, len(panels))
    drawn = Figure(title, height, PAGE, photos=True)
    drawn.set_layout_engine("none")  # it would lay the title over the first captions
    edges = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - 0.65 / height}
    spaces = edges | {"wspace": 0.05, "hspace": 0.15}
    grid = drawn.subplots(max(1, len(panels)), 4, squeeze=False, gridspec_kw=spaces)
    for row, (query, left, right, match) in zip(panels, grid, strict=False):
        chips, captions, rightness = zip(*row, strict=True)
        images, maps = _pair(net, preprocess, row)
        for place, axes in enumerate((query, left, right, match)):
            axes.imshow(chips[place // 2])
            axes.set_axis_off()
        size, look = len(chips[0]), {"cmap": "Reds", "vmin": 0, "vmax": 1}
        look["interpolation"] = "bilinear"
        for axes, strength in zip((left, right), maps.cpu().numpy(), strict=True):
            axes.imshow(strength, alpha=0.8 * strength, extent=(0, size, size, 0), **look)
        for pair in lines(net, images, maps):
            down, along = np.divmod(pair, maps.shape[2])
            ends = np.column_stack([along, down]) * CELL + CELL / 2
            across = {"coordsA": left.transData, "coordsB": right.transData}
            drawn.add_artist(ConnectionPatch(*ends, **across, color=BLUE, linewidth=0.8))
        mark = {True: "right: ", False: "wrong: ", None: ""}[rightness[1]]
        query.set_title(captions[0].replace("\n", " "), loc="left", fontsize=7)
        match.set_title(mark + captions[1].replace("\n", " "), loc="left", fontsize=7)
    return drawn


def _loaded(weights: Path) -> tuple[MiewIDNet, Preprocess]:
    net, preprocess = load_model(weights, default_device())
    return net.requires_grad_(False), preprocess


def _images(chips: Sequence[np.ndarray], preprocess: Preprocess) -> torch.Tensor:
    return preprocess.batch(torch.from_numpy(np.stack(chips)).to(default_device()))


# ---- how true the map is


def quality(
    network: Network,
    tested: Embeddings,
    photos: pd.DataFrame,
    drawn: bool,
    count: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """How good MAPS are for `count` right and as many wrong matches: the table of `summary`.

    `tested`: embeddings by the network, of photos that it hasn't learned; `photos`: catalog rows of
    these and others. `drawn`: whether they show drawn animals, of which it is known where they are.
    """
    net, preprocess = _loaded(network.weights)
    found = pairs(tested, count, seed)
    if found.empty:
        return pd.DataFrame(columns=["map", "match", "pairs"])
    rows, store = tested.rows.iloc[found["query"]], ChipStore(network.chips_dir, preprocess.size)
    animals = [*outlines(photos, rows, preprocess.size)] if drawn else []
    tables, step = [], max(1, AT_ONCE // preprocess.size**2)
    for start in progress(range(0, len(rows), step), "relevance"):
        part = slice(start, start + step)
        own, shown = rows[part], torch.from_numpy(np.stack(animals[part])) if drawn else None
        images = _images([store.read(key) for key in own["chip"]], preprocess)
        for match in ("right", "wrong"):
            others = torch.from_numpy(tested.vectors[found[match][part]]).to(images.device)
            table = measure(net, images, others, shown, seed + start)
            people = np.tile(own["individual"], len(MAPS))
            tables.append(table.assign(match=match, individual=people))
    return summary(pd.concat(tables, ignore_index=True))


def pairs(tested: Embeddings, count: int, seed: int) -> pd.DataFrame:
    """Random queries, each with its nearest photo of its individual and of another: row numbers.

    Columns query, right, wrong: of `tested`. What counts as whose is said in `embeddings.nearest`;
    a query without both doesn't count.
    """
    numbered = dataclasses.replace(tested, rows=tested.rows.assign(place=range(len(tested.rows))))
    parts = []
    for own, _ in by_species(numbered, numbered):
        places, cosines = nearest(own.vectors, own.rows, own.vectors, own.rows)
        three = own.rows["place"].to_numpy()[[range(len(own.rows)), *places]]
        parts.append(pd.DataFrame(three.T[np.isfinite(cosines).all(axis=0)]))
    found = pd.concat(parts).set_axis(["query", "right", "wrong"], axis=1).set_index("query")
    drawn = np.random.default_rng(seed).permutation(len(tested.rows))
    return found.loc[drawn[np.isin(drawn, found.index)][:count]].reset_index()


def measure(
    network: nn.Module,
    images: torch.Tensor,
    others: torch.Tensor,
    animals: torch.Tensor | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How good each of MAPS is for B pairs of `images` with `others` (see `relevance`).

    `animals`: (B, S, S) bool, true where the animal is. Returns one row per map and pair: map;
    area, on_animal (the animal's shares of the image and of the relevance); similarity, and that
    when the most relevant shares of the image are grey (greyed_10 for 10 %, ...).
    """
    tables = []
    for name, places in _maps(network, images, others, seed).items():
        greyed = [images * ~_most_relevant(places, share, images.shape[-1]) for share in GREYED]
        with torch.no_grad():  # 0 is grey
            curve = [F.cosine_similarity(network(shown), others) for shown in (images, *greyed)]
        table = pd.DataFrame(torch.stack(curve, 1).cpu().numpy(), columns=CURVE)
        if animals is not None:
            animal = F.avg_pool2d(animals[:, None].float(), CELL, ceil_mode=True)[:, 0]
            kept = places.cpu().clamp(min=0) + 1e-12  # what speaks for the match
            table["area"] = animal.mean((1, 2)).numpy()
            table["on_animal"] = ((animal * kept).sum((1, 2)) / kept.sum((1, 2))).numpy()
        tables.append(table.assign(map=name))
    return pd.concat(tables, ignore_index=True)


def _maps(
    network: nn.Module, images: torch.Tensor, others: torch.Tensor, seed: int
) -> dict[str, torch.Tensor]:
    """MAPS, (B, h, w) each: what is measured, and what it has to be better than."""
    ours = relevance(network, images, others)
    down, along = (torch.linspace(-1, 1, side, device=ours.device) for side in ours.shape[1:])
    centre = torch.exp(-2 * (down[:, None] ** 2 + along**2))  # a deviation of a quarter of the side
    cam = grad_cam(network, images, others)[:, None]
    cam = F.interpolate(cam, ours.shape[1:], mode="bilinear")[:, 0]
    detail = _summed((images - without_detail(images)) ** 2)
    drawn = torch.rand(ours.shape, generator=torch.Generator().manual_seed(seed))
    drawn = drawn.to(ours.device)
    return dict(zip(MAPS, [ours, detail, cam, centre.expand_as(ours), drawn], strict=True))


def grad_cam(network: MiewIDNet, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of the similarity at the last map (Selvaraju et al. 2017), to compare: (B, h, w)."""
    seen = []
    hook = network.pooling.register_forward_hook(lambda _, given, __: seen.extend(given))
    network(images)
    hook.remove()
    features = seen[0].requires_grad_()
    with torch.enable_grad():
        similar = F.cosine_similarity(network.bn(network.pooling(features)), others).sum()
        slopes = torch.autograd.grad(similar, features)[0]
    weights = slopes.flatten(2).mean(2, keepdim=True)  # (B, C, 1)
    cam = (features.flatten(2) * weights).sum(1).clamp(min=0).detach()
    return cam.view(len(cam), math.isqrt(cam.shape[1]), -1)


def _most_relevant(maps: torch.Tensor, share: float, side: int) -> torch.Tensor:
    """(B, 1, side, side) bool: the cells of highest value that are this share of all."""
    flat = maps.flatten(1)
    top = flat.topk(round(share * flat.shape[1])).indices
    chosen = torch.zeros_like(flat).scatter_(1, top, 1).view(-1, 1, *maps.shape[1:])
    return F.interpolate(chosen, scale_factor=CELL)[..., :side, :side] > 0


def summary(measured: pd.DataFrame) -> pd.DataFrame:
    """A row for each map and match of `measure`'s rows (with match, individual).

    odds_animal: odds of the relevance on the animal over those of its area, with its 95 % interval
    over individuals; similarity, greyed_10 and so on: means.
    """
    rows = []
    for (match, name), own in measured.groupby(["match", "map"], sort=False):
        row = {"map": name, "match": match, "pairs": len(own)}
        if "area" in own:
            people = own.groupby("individual")[["on_animal", "area"]]
            sums, counts = people.sum().to_numpy(), people.size().to_numpy()[:, None]
            draws = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
            drawn = _odds_ratio(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
            row["odds_animal"] = _odds_ratio(own[["on_animal", "area"]].to_numpy().mean(axis=0))
            row["odds_low"], row["odds_high"] = np.quantile(drawn, [0.025, 0.975])
        rows.append(row | own[CURVE].mean().to_dict())
    return pd.DataFrame(rows)


def _odds_ratio(shares: np.ndarray) -> np.ndarray:
    """Odds of the first of two shares (..., 2) over those of the second."""
    shares = np.clip(shares, 1e-6, 1 - 1e-6)  # all of it has no finite odds
    odds = shares / (1 - shares)
    return odds[..., 0] / odds[..., 1]


def quality_in_words(table: pd.DataFrame) -> str:
    """What a table of `quality` says about the maps of this network."""
    if table.empty:
        return "No photo has both a right and a wrong one to be compared with."
    matches = dict(list(table.set_index("map").groupby("match")))
    right, wrong = (matches[match].loc["relevance"] for match in ("right", "wrong"))
    random = matches["right"].loc["random", "greyed_20"]
    words = (
        f"Greying the reddest fifth of a photo takes the similarity of a right match from "
        f"{right['similarity']:.2f} to {right['greyed_20']:.2f}, a random fifth to {random:.2f}."
    )
    pairs = f"({right['pairs']} right and {wrong['pairs']} wrong pairs.)"
    if "odds_animal" not in table:
        return f"{words} Where the animal is isn't known of these photos. {pairs}"
    odds = "{odds_animal:.1f} times ({odds_low:.1f} to {odds_high:.1f})"
    verdict = "where red lies helps to tell them apart"
    if right["odds_low"] <= 1:
        verdict = "**the network looks at the background no less than at the animal**"
    elif right["odds_low"] <= wrong["odds_high"]:
        verdict = "it looks at the animal in both, so where red lies doesn't tell them apart"
    return (
        f"{words} The odds that red lies on the animal are {odds.format(**right)} those of its "
        f"area in right matches, and {odds.format(**wrong)} in wrong ones: {verdict}. "
        f"{pairs}"
    )


@styled()
def quality_figure(table: pd.DataFrame, title: str) -> Figure:
    """Odds on the animal by map, and similarity as the most relevant places are greyed out."""
    drawn = Figure(title, 2.9, PAGE)
    left, right = drawn.subplots(1, 2, width_ratios=[3, 4])
    for _, row in table.iterrows():
        number, hollow = MAPS.index(row["map"]), row["match"] == "wrong"
        colour, place = COLOURS[number], number + 0.25 * hollow
        look = {"color": colour, "marker": MARKERS[number]}
        if "odds_animal" in row:
            left.plot([row["odds_low"], row["odds_high"]], [place] * 2, color=colour)
            fill = "white" if hollow else colour
            left.plot(row["odds_animal"], place, linestyle="", markerfacecolor=fill, **look)
        if not hollow:
            curve = row[CURVE].astype(float)
            shares = [0, *(100 * share for share in GREYED)]
            right.plot(shares, curve, label=row["map"], markersize=4, **look)
    left.axvline(1, color=GREY, linewidth=0.8)
    left.set_yticks(range(len(MAPS)), MAPS)
    left.invert_yaxis()
    left.set_xlabel("odds on the animal over those of\nits area (hollow: wrong matches)")
    right.set(xlabel="most relevant share greyed out (%)", ylabel="similarity, right matches")
    if len(table):
        right.legend()
    return drawn


# ---- does the network look at the animal?


def altered_queries(
    network: Network, tested: Embeddings, photos: pd.DataFrame, drawn: bool, seed: int = 0
) -> pd.DataFrame:
    """Top-1 of queries as they are, mirrored, and with the animal greyed out; in percent.

    Parameters are those of `quality`. At most MOST of `tested` are altered and search all others,
    which aren't. A drawn animal is greyed by its outline. Of a real photo the ellipse that fills
    its box is: greying what `relevance` marks would lower the accuracy whatever the network looks
    at. Columns query, species (the last is the "mean" over species), queries, individuals, top1,
    low, high (95 % interval), chance.
    """
    net, preprocess = _loaded(network.weights)
    size, store = preprocess.size, ChipStore(network.chips_dir, preprocess.size)
    chosen = np.random.default_rng(seed).permutation(len(tested.rows))[:MOST]
    asking = tested.of(np.isin(np.arange(len(tested.rows)), chosen))
    chips = [store.read(key) for key in asking.rows["chip"]]
    place = (np.arange(size) + 0.5) / size * 2 - 1
    animals = [place[:, None] ** 2 + place**2 < 1] * len(chips)
    if drawn:  # the outline's blurred edge goes as well
        outlined, edge = outlines(photos, asking.rows, size), np.ones((5, 5))
        animals = [cv2.dilate(animal.astype(np.uint8), edge) > 0 for animal in outlined]
    greyed = zip(chips, animals, strict=True)
    altered = {
        "mirrored": [np.fliplr(chip).copy() for chip in chips],
        "animal greyed": [np.where(animal[..., None], MEAN_PIXEL, chip) for chip, animal in greyed],
    }
    vectors = {"unchanged": asking.vectors}
    for name, changed in altered.items():
        items = [(chip, -1) for chip in changed]  # as of a ChipDataset
        vectors[name] = evaluation.embed(net, preprocess, items, device=default_device())
    ranks = tested.ranks()
    ranks = ranks[ranks["annotation_id"].isin(asking.rows["annotation_id"])]
    chance, tables = compare({"top1": ranks}).set_index("species")["chance"], []
    for name, own in vectors.items():
        found = searches(dataclasses.replace(asking, vectors=own), tested)
        known = found[found["true_score"].notna()]
        right = known["true_score"] > known["other_score"].fillna(-2)
        tables.append(intervals.by_species(right.astype(float), found).assign(query=name))
    table = pd.concat(tables, ignore_index=True).rename(columns={"value": "top1"})
    table[["top1", "low", "high"]] *= 100
    table.insert(0, "query", table.pop("query"))
    return table.assign(chance=table["species"].map(chance))


def outlines(photos: pd.DataFrame, rows: pd.DataFrame, size: int) -> Iterator[np.ndarray]:
    """(size, size) bool of each chip of embedded `rows`: where the drawn animal is.

    `photos`: catalog rows of these and others.
    """
    shown = photos.set_index("annotation_id", drop=False).loc[rows["annotation_id"]]
    for row, marks in zip(shown.itertuples(), anatomy(shown), strict=True):
        # turned round, as what lies outside a photo is 255 in a chip
        chip = resize(crop(255 - marks, (row.x, row.y, row.w, row.h), row.theta), size)
        yield chip[..., 0] < 128


def altered_in_words(table: pd.DataFrame) -> str:
    """What `altered_queries` tells of what the network looks at."""
    means = table[table["species"] == "mean"].set_index("query")
    if means["top1"].isna().any():
        return "No photo has another one of its individual to be found by."
    shown = intervals.with_interval(means, "top1", "low", "high", 0)
    unchanged, mirrored, greyed = (text.replace(" ", " % ", 1) for text in shown)
    low, chance = means.loc["animal greyed", ["low", "chance"]]
    if low > chance:
        verdict = (
            "**Without the animal it finds more than chance does:** what is around an animal, or "
            "its outline, gives some away. Compare photos of different places and days."
        )
    else:
        verdict = "No use of the background is shown."
    if means["high"]["mirrored"] < means["low"]["unchanged"]:
        verdict += " To this network a mirrored animal is another one, so don't mix sides."
    return (
        f"On average over {table['species'].nunique() - 1} species ({means['queries'].iloc[0]:,} "
        f"queries) the nearest photo is right for {unchanged} unchanged, {mirrored} mirrored, and "
        f"{greyed} with the animal greyed out; by chance {chance:.0f} %. {verdict}"
    )
