"""The paper's five tables as it prints them, its spellings of each species made one."""

import re
from pathlib import Path

import pandas as pd

FOLDER = Path(__file__).parent / "tables"
# What the paper's text states of its whole data set (abstract and section 3).
PRINTED = {
    "n_species": 49,
    "annotations": 225_374,
    "individuals": 37_138,
    "mean_per_individual": 6.25,
    "median_per_individual": 3.0,
}
# Our name of a species: the paper's other names for it, and a reader's. Case, blanks, hyphens,
# underscores and a body part after "+" never matter. Which image sets of Table 1 are one species
# is read off Table 2; the paper doesn't say it. Guesses:
# - chimpanzee, grouped by name, though its three sets come from three places;
# - pilot_whale holds long-finned and short-finned ones, two species, as Table 2 has only one row;
# - spotted_dolphin holds the pantropic ones, while the two sets of horses stay apart: only so are
#   there 49 species, and Table 2 writes merged ones in one word (finwhale, spotteddolphin).
SPELLINGS = {
    "amur_tiger": ("siberian_tiger",),
    "beluga_whale": ("beluga", "whale_beluga"),
    "blue_whale": ("whale_blue",),
    "bottlenose_dolphin": ("dolphin_bottlenose", "common_bottlenose_dolphin"),
    "brydes_whale": ("whale_brydes",),
    "capuchin": (),
    "cheetah": (),
    "chimpanzee": ("chimpanzee_ctai", "chimpanzee_czoo", "chimp"),
    "commersons_dolphin": (),
    "cuviers_beaked_whale": (),
    "dog": (),
    "dusky_dolphin": (),
    "eurasian_lynx": ("lynx_lynx",),
    "fin_whale": ("whale_fin",),
    "frasiers_dolphin": ("frasers_dolphin",),
    "giraffe": (),
    "green_turtle": ("turtle_green", "green_sea_turtle"),
    "grey_whale": ("whale_grey", "gray_whale", "whale_gray"),
    "hawksbill_turtle": ("turtle_hawksbill", "hawksbill_sea_turtle"),
    "horse_wild": ("wild_horse",),
    "horse_wild_tunisian": (),
    "humpback_whale": ("whale_humpback", "humpback"),
    "hyena": ("spotted_hyena",),
    "hyperoodon_ampullatus": ("northern_bottlenose_whale",),
    "jaguar": (),
    "japanese_monkey": ("japanese_macaque",),
    "leopard": (),
    "lion": (),
    "loggerhead_turtle": ("turtle_loggerhead", "turtle_loggerhead_ext", "loggerhead_sea_turtle"),
    "lynx_pardinus": ("iberian_lynx",),
    "macaque_face": (),
    "melon_headed_whale": (),
    "nyala": (),
    "orca": ("whale_orca", "killer_whale"),
    "pilot_whale": (
        *("long_finned_pilot_whale", "short_finned_pilot_whale"),
        "short_fin_pilot_whale",
    ),
    "pygmy_killer_whale": (),
    "rhesus_monkey": ("rhesus_macaque",),
    "rough_toothed_dolphin": (),
    "seal": (),
    "sei_whale": ("whale_sei",),
    "snow_leopard": (),
    "sperm_whale": ("whale_sperm",),
    "spinner_dolphin": (),
    "spotted_dolphin": ("pantropic_spotted_dolphin",),
    "whale_shark": (),
    "white_shark": ("great_white_shark",),
    "white_sided_dolphin": (),
    "wild_dog": ("african_wild_dog",),
    "zebra_grevys": ("grevys_zebra",),
}


def _key(name: str) -> str:
    """Letters and digits of a name, in lower case, up to a body part ("+fluke")."""
    return re.sub(r"[\W_]", "", name.partition("+")[0].lower())


KNOWN = {_key(name): own for own, others in SPELLINGS.items() for name in (own, *others)}


def species_name(name: str) -> str:
    """Our one name of a species however it is spelt: "Fin whale", "finwhale" -> "fin_whale".

    A species that the paper doesn't have keeps its name, in lower case with "_" for blanks.
    """
    plain = re.sub(r"[\W_]+", "_", name.strip().lower().replace("'", ""))
    return KNOWN.get(_key(name), plain.strip("_"))


def printed_table(number: int) -> pd.DataFrame:
    """The paper's Table `number`, 1 to 5, top-1 accuracy in percent, species named as by us.

    Table 1 has one row per image set, its printed name in `dataset`. What can't be read is missing.
    Raises ValueError for another number.
    """
    if number not in range(1, 6):
        raise ValueError(f"the paper has no Table {number}; it has Tables 1 to 5")
    printed = pd.read_csv(FOLDER / f"table{number}.csv")
    if number > 1:
        return printed.assign(species=printed["species"].map(species_name))
    printed = printed.astype({"annotations": "Int64", "individuals": "Int64"})
    printed.insert(1, "species", printed["dataset"].map(species_name))
    return printed


def combined_table1() -> pd.DataFrame:
    """Table 1 with the image sets of each species added up: species, annotations, individuals.

    A sum with a missing part is missing. Individuals in two sets of a species count twice.
    """
    return (
        printed_table(1)
        .groupby("species")[["annotations", "individuals"]]
        .agg(lambda column: column.sum(skipna=False))
        .reset_index()
    )


def beside_table1(ours: pd.DataFrame) -> pd.DataFrame:
    """Our Table 1 (of `census.summary`) beside the paper's, for the species that both have.

    Last comes species "all species": our total beside the totals that the paper's text states, in
    `n_species` how many species that is. Annotations per individual as mean and median; the paper
    prints no median of one species.
    """
    names = ["annotations", "individuals", "mean_per_individual", "median_per_individual"]
    total, rows = ours["species"] == "total", ours.assign(n_species=1)
    rows.loc[total, "n_species"] = (~total).sum()
    rows["key"] = rows["species"].map(species_name).mask(total, "total")
    paper = combined_table1().assign(n_species=1)
    paper["mean_per_individual"] = paper["annotations"] / paper["individuals"]
    paper = pd.concat([paper, pd.DataFrame([{"species": "total", **PRINTED}])])
    paper = paper.rename(columns={"species": "key"}).set_index("key").add_prefix("paper_")
    both = rows.merge(paper.reset_index(), on="key")
    both["species"] = both["species"].mask(both["key"] == "total", "all species")
    names.insert(0, "n_species")
    return both[["species", *names, *(f"paper_{name}" for name in names)]]


def one_below_the_other(beside: pd.DataFrame) -> pd.DataFrame:
    """A table of `beside_table1`, the paper's row below each of ours: half as many columns."""
    names = [name for name in beside if f"paper_{name}" in beside]
    columns = {"here": names, "the paper": [f"paper_{name}" for name in names]}
    parts = [
        beside[["species", *own]].set_axis(["species", *names], axis=1).assign(of=whose)
        for whose, own in columns.items()
    ]
    return pd.concat(parts).sort_index(kind="stable")[["species", "of", *names]]
