"""Who is this? From photos of known animals and of unidentified ones to a review and sightings.

The way through, which notebook 12 goes step by step and `write_review` in one call:

- `network`: `choose` the measured network, which embeds all photos (`embeddings`).
- `success`: how well it works on the known animals. `threshold`: from which score on an animal is
  probably new, and how sure a match is.
- `queries`: the photos `to_identify`, or known ones that are held back.
- `candidates`: `found_by` a network, or by another matcher, too (`fusion`); `explain`: why.
- `review`: the page and the sheet on which somebody decides; decisions become sightings.
- `exports`: what sightings become, for other programs.
"""

from pathlib import Path

import pandas as pd

from miewid_core.beyond_paper.identify import (
    candidates,
    explain,
    exports,
    review,
    success,
    threshold,
)
from miewid_core.beyond_paper.identify.candidates import found_by
from miewid_core.beyond_paper.identify.network import (
    FINAL,
    Network,
    asked,
    choose,
    final_network,
    subtitle,
)
from miewid_core.beyond_paper.identify.queries import to_identify, with_dates
from miewid_core.catalog import notices
from miewid_core.paper.study import Study

__all__ = [
    "asked",
    "candidates",
    "choose",
    "explain",
    "exports",
    "final_network",
    "found_by",
    "review",
    "save_review",
    "subtitle",
    "success",
    "threshold",
    "to_identify",
    "with_dates",
    "write_review",
]
WHERE = "photos_dir", "absolute_paths", "species"  # of the photos to identify, as of a catalog


def save_review(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    page: Path,
    title: str,
    network: Network,
    report: threshold.Report | None,
) -> None:
    """Write the review's page, with what `report` says of each first score.

    It holds for cosines of the measured network alone: None for those fused with other scores.
    """
    stated = report and network.role != FINAL
    notes = threshold.notes(found, report.thresholds, report.calibrations) if stated else {}
    maps = explain.overlays(network, found, queries, known)
    review.save_page(found, queries, known, page, title, notes, network.role, maps)


def write_review(
    study: Study,
    photos: str,
    weights: str = "",
    final: bool = False,
    scores: str = "",
    false_matches: float = 0.1,
    **where: str | bool,
) -> str:
    """Notebook 12 in one call: the page to identify `photos` on; returns what was done, in words.

    It is written into the study's `figures_dir`. Parameters are the notebook's; `where`: WHERE.
    """
    known_photos = with_dates(study.annotations)
    # first, as a wrong folder is not to be told of after hours of training
    queries, known = to_identify(known_photos, study.test, photos, study.seed, **where)
    measured = choose(study, weights)
    everything = measured.embed(known_photos)
    tested = everything.those_in(measured.tested)
    searches = threshold.searches(tested, everything, measured.learned)
    report = None if scores else threshold.report(searches, false_matches, study.seed)
    network = final_network(study, measured, known, weights, scores) if final else measured
    found = found_by(network, known_photos, queries, known, tested, scores)
    title = f"Who is this? · {subtitle(study, weights)} · {network.role}"
    folder = study.figures_dir
    page = folder / "review.html"
    save_review(found, queries, known, page, title, network, report)
    review.save_csv(review.sheet(found, queries, network.role), folder / "review.csv")
    told = pd.concat([notices(known_photos), notices(queries)])
    review.save_csv(told, folder / "notices.csv")
    lines = [
        f"{len(queries):,} photos to identify, {len(known):,} known ones of "
        f"{known['individual'].nunique():,} individuals, {len(told):,} notices.",
        *dict.fromkeys(f"The {one.role}: {one.words}" for one in (measured, network)),
        success.headline(success.table(tested, measured.learned), page, weights, network.role),
        f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB). Beside it lie review_photos (keep it "
        "there), review.csv (the page as a sheet) and notices.csv.",
        f"Network: {measured.weights} (give it as --weights, and it isn't trained again)",
    ]
    return "\n".join(lines)
