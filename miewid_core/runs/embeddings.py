"""Embeddings that travel: kept with what they were made from, checked when read, and searched."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from miewid_core import evaluation, model
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.files import digest, file_digest, replacing
from miewid_core.machine import default_device

LABELS = ["annotation_id", "species", "individual", "encounter", "chip"]
HASHES = ["weights", "preprocessing"]
BLOCK, ROWS = 256, 65_536  # queries and database rows at once: 67 MB of similarities


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings and their origin; any two with the same `weights` and `preprocessing` compare.

    `rows`: LABELS of each annotation as text, "" where unknown; `chip` is the hash of its photo,
    box and size. `vectors`: (N, D) float32, not normalised. `weights` and `preprocessing`: SHA-256
    of the weights file, and of size, mean and deviation. Raises ValueError where these don't fit.
    """

    rows: pd.DataFrame
    vectors: np.ndarray
    weights: str
    preprocessing: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.rows):
            raise ValueError(f"{len(self.rows)} rows do not fit vectors {self.vectors.shape}")
        ids = self.rows["annotation_id"]
        twice = ids[ids.duplicated()].tolist()
        if twice:
            raise ValueError(f"several embeddings of one annotation: {_some(twice)}")
        bad = ids[~np.isfinite(self.vectors).all(axis=1)].tolist()
        if bad:
            raise ValueError(f"embeddings are not finite for {_some(bad)}")

    def of(self, chosen: pd.Series | np.ndarray) -> "Embeddings":
        """Those of the rows where `chosen` (N,) bool is true."""
        chosen = np.asarray(chosen, dtype=bool)
        rows = self.rows[chosen].reset_index(drop=True)
        return dataclasses.replace(self, rows=rows, vectors=self.vectors[chosen])


def embed(weights: Path | str, photos: pd.DataFrame, chips_dir: Path, cache: Path) -> Embeddings:
    """Embeddings of `photos` (catalog rows) by a weights file, kept as Parquet below `cache`.

    `weights` is as for `model.load`. The same weights, photos and labels are embedded once.
    """
    network, preprocess = model.load(weights, default_device())
    store = ChipStore(chips_dir, preprocess.size)
    rows = photos[LABELS[:-1]].assign(chip=store.build(photos)).reset_index(drop=True)
    hashes = file_digest(Path(weights)), preprocessing_digest(preprocess)
    path = Path(cache) / f"{digest(*hashes, rows.to_csv(index=False))[:16]}.parquet"
    if path.exists():
        with contextlib.suppress(ValueError):  # damaged: made again
            return load(path, *hashes, chips=dict(rows[["annotation_id", "chip"]].to_numpy()))
    chips = ChipDataset(store, rows["chip"].tolist())
    vectors = evaluation.embed(network, preprocess, chips, device=default_device())
    made = Embeddings(rows, vectors, *hashes)
    save(made, path)
    return made


def preprocessing_digest(preprocess: model.Preprocess) -> str:
    """SHA-256 of what is done to a photo before the network sees it."""
    return digest(json.dumps(preprocess.record(), sort_keys=True))


def save(embeddings: Embeddings, path: Path | str) -> None:
    """Write a .parquet (column "embedding", lists of D), or a .csv (columns "0" to "D-1").

    Each row carries LABELS and HASHES, so that rows of several files can't be mixed unnoticed.
    Both keep every bit of the vectors. Raises ValueError for another kind of file.
    """
    writer = {".parquet": _write_parquet, ".csv": _write_csv}.get(Path(path).suffix.lower())
    if writer is None:
        raise ValueError(f"{path}: embeddings are written as .parquet or .csv")
    rows = embeddings.rows[LABELS].astype(str)
    rows = rows.assign(**{name: getattr(embeddings, name) for name in HASHES})
    with replacing(Path(path)) as temporary:
        writer(rows, embeddings.vectors.astype(np.float32), temporary)


def _write_parquet(rows: pd.DataFrame, vectors: np.ndarray, path: Path) -> None:
    table = pa.Table.from_pandas(rows, preserve_index=False)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    parquet.write_table(table.append_column("embedding", lists), path, write_page_checksum=True)


def _write_csv(rows: pd.DataFrame, vectors: np.ndarray, path: Path) -> None:
    columns = [str(place) for place in range(vectors.shape[1])]
    whole = rows.reset_index(drop=True).join(pd.DataFrame(vectors, columns=columns))
    whole.to_csv(path, index=False, lineterminator="\n")


def load(
    path: Path | str,
    weights: str = "",
    preprocessing: str = "",
    chips: Mapping[str, str] | None = None,
) -> Embeddings:
    """Read what `save` wrote, and check it against what it should be of, as far as that is given.

    `weights`, `preprocessing`: hashes as in Embeddings. `chips`: chip key of each annotation id.
    Raises ValueError naming what differs, or what makes the file none of embeddings.
    """
    reader = {".parquet": _read_parquet, ".csv": _read_csv}.get(Path(path).suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: embeddings are read from .parquet or .csv")
    try:
        rows, vectors = reader(Path(path))
        missing = [name for name in [*LABELS, *HASHES] if name not in rows]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        mixed = [name for name in HASHES if rows[name].nunique() > 1]
        if mixed:
            raise ValueError(f"rows of several {' and '.join(mixed)}; keep one file for each")
        hashes = [rows[name].iloc[0] if len(rows) else "" for name in HASHES]
        found = Embeddings(rows[LABELS], vectors, *hashes)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} holds no embeddings that can be used: {error}") from error
    wanted = {"weights": weights, "preprocessing": preprocessing}
    _refuse(str(path), _other_hashes(found, wanted) + _other_photos(found, chips))
    return found


def _read_parquet(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    table = parquet.read_table(path, page_checksum_verification=True)
    if "embedding" not in table.column_names:
        raise ValueError("no column embedding")
    lists = table["embedding"].combine_chunks()
    if not pa.types.is_fixed_size_list(lists.type):
        raise ValueError(f"column embedding is of {lists.type}, not of lists of one length")
    width = lists.type.list_size
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return table.drop_columns("embedding").to_pandas().astype(str), vectors.astype(np.float32)


def _read_csv(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    text = dict.fromkeys([*LABELS, *HASHES], str)  # a name 007 stays one
    whole = pd.read_csv(path, dtype=text, keep_default_na=False)
    columns = [name for name in whole if name not in text]
    if columns != [str(place) for place in range(len(columns))]:
        raise ValueError(f"columns {_some(columns)} are not 0, 1, 2, ...")
    return whole.drop(columns=columns), whole[columns].to_numpy(np.float32)


def _other_hashes(found: Embeddings, wanted: Mapping[str, str]) -> list[str]:
    """In words, which hashes differ."""
    return [
        f"other {name} ({getattr(found, name)[:12]}, not {of[:12]})"
        for name, of in wanted.items()
        if of and getattr(found, name) != of
    ]


def _other_photos(found: Embeddings, chips: Mapping[str, str] | None) -> list[str]:
    """In words, which annotations are missing, too many, or of another photo or box."""
    if chips is None:
        return []
    kept, wanted = found.rows.set_index("annotation_id")["chip"].to_dict(), dict(chips)
    changed = [name for name in kept if name in wanted and kept[name] != wanted[name]]
    groups = {
        "no embedding of": [name for name in wanted if name not in kept],
        "embeddings of unknown": [name for name in kept if name not in wanted],
        "another photo or box of": changed,
    }
    return [f"{words} {_some(names)}" for words, names in groups.items() if names]


def _refuse(what: str, differences: list[str]) -> None:
    if differences:
        raise ValueError(f"{what}: {'; '.join(differences)}. Embed these photos again.")


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
