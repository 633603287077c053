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
# Our name of a species, the paper's other names for it, and a reader's. Case, blanks, hyphens,
# underscores and a body part after "+" never matter. Which image sets of Table 1 are one species
# is read off Table 2; the paper doesn't say it. Guesses:
# - chimpanzee, grouped by name, though its three sets come from three places;
# - giraffe holds Masai giraffes, those of Wild Me's public set;
# - pilot_whale holds long-finned and short-finned ones, two species, as Table 2 has only one row;
# - spotted_dolphin holds the pantropic ones, while the two sets of horses stay apart: only so are
#   there 49 species, and Table 2 writes merged ones in one word (finwhale, spotteddolphin).
_spellings = pd.read_csv(FOLDER / "spellings.csv", keep_default_na=False)
SPELLINGS = dict(zip(_spellings["species"], _spellings["other_names"].str.split(), strict=True))


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
