"""Ranks and trainings by hand, that the tests of comparisons begin with."""

import pandas as pd

from miewid_core.evaluation import hits
from miewid_core.paper.intervals import by_species

CANDIDATES = 9


def ranks(**firsts):
    """Ranks with two queries an individual: `firsts` has each species' ranks of the first match."""
    rows = [(species, place) for species, places in firsts.items() for place in places]
    table = pd.DataFrame(rows, columns=["species", "first_match_rank"])
    table["annotation_id"] = [f"{species}{i}" for i, species in enumerate(table["species"])]
    place = table.groupby("species").cumcount() // 2
    table["individual"] = table["species"] + place.astype(str)
    table["first_match_rank"] = table["first_match_rank"].astype("Int64")
    return table.assign(candidates=CANDIDATES, relevant=1, encounter="")


def training(**counts):
    """So many annotations of the first individual of each species."""
    table = pd.DataFrame({"species": [name for name, n in counts.items() for _ in range(n)]})
    return table.assign(individual=table["species"] + "0")


def per_species(ranks, k):
    """Top-k with its interval by species: species, queries, individuals, top_k, low, high."""
    table = by_species(hits(ranks, k).astype(float), ranks)
    return table.rename(columns={"value": "top_k"})[:-1]
