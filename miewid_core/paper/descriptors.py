"""Any network that timm loads as a descriptor: used as it is, at its native size (section 5.3)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save
from torch import nn

from miewid_core.chips import ChipStore
from miewid_core.config import TrainConfig
from miewid_core.files import digest
from miewid_core.machine import default_device
from miewid_core.model import Preprocess, known, load_exactly, read_tensors, without_head
from miewid_core.paper.comparison import compare
from miewid_core.paper.intervals import ENDS
from miewid_core.paper.study import Study
from miewid_core.readers.weights import load_model, weights_file
from miewid_core.runs.run import kept_vectors

MEGADESCRIPTOR = "hf-hub:BVRA/MegaDescriptor-L-384"


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """A network of timm's, its features pooled by its own layer, that nobody trains here.

    `name`: a timm name, "hf-hub:OWNER/MODEL", or "local-dir:FOLDER" with the files of such a model.
    `weights`: True takes the name's own, a path reads a safetensors file, False draws them at
    random. A `name` that is a file or folder of MiewID's weights, as for `load_model`,
    is read as these. `title`: what figures call it.
    """

    name: str
    weights: bool | str
    title: str

    def load(self) -> tuple[nn.Module, Preprocess]:
        """The network in evaluation mode, and its native input size, mean and standard deviation.

        Its crop is left out, as a chip's box ends at the animal, and chips are resized bilinearly
        with antialiasing, as MegaDescriptor's instructions do. With EfficientNet-Lite0 on the demo
        timm's bicubic gives 33.6 % top-1, this 33.5 %, timm's crop 32.8 %. Raises ValueError for
        what timm can't load or download, and for weights that don't fit.
        """
        if weights_file(self.name).is_file():
            return load_model(self.name, default_device())
        with torch.random.fork_rng():  # timm draws weights from torch's global generator
            torch.manual_seed(0)
            network = self._created()
        if isinstance(self.weights, str):
            load_exactly(network, without_head(read_tensors(self.weights), network), self.weights)
        data = timm.data.resolve_model_data_config(network)
        _, height, width = data["input_size"]
        if height != width:
            raise ValueError(f"{self.name} takes photos of {width} x {height}; chips are square")
        preprocess = Preprocess(height, tuple(data["mean"]), tuple(data["std"]))
        return network.to(default_device(), memory_format=torch.channels_last).eval(), preprocess

    def _created(self) -> nn.Module:
        try:
            return timm.create_model(self.name, pretrained=self.weights is True, num_classes=0)
        except OSError as error:  # all that the hub raises when it can't be reached is one
            raise ValueError(
                f"descriptor {self.name} could not be downloaded ({error}). Where the hub can't be "
                "reached, copy the model's files (config.json and the weights) into a folder and "
                "give descriptor=local-dir:FOLDER; or give a timm name as descriptor= and a local "
                "safetensors file as descriptor_weights="
            ) from error
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"descriptor {self.name} can't be loaded ({error}). It must be a name of "
                "timm.list_models(), hf-hub:OWNER/MODEL, or local-dir:FOLDER"
            ) from error

    def embed(self, annotations: pd.DataFrame, chips_dir: Path, cache: Path) -> np.ndarray:
        """Embeddings (N, D) float32 of `annotations`, kept in the folder `cache`."""
        network, preprocess = self.load()
        state = {key: value.cpu().contiguous() for key, value in network.state_dict().items()}
        built = re.sub(" at 0x[0-9a-f]+", "", repr(network))  # by its name and what it was given
        identity = digest(built, save(state), repr(preprocess))
        store = ChipStore(chips_dir, preprocess.size, preprocess.resizing)
        return kept_vectors(identity, lambda: (network, preprocess), store, annotations, cache)

    def ranks(self, study: Study) -> pd.DataFrame:
        """One row per query: a study's test annotations ranked by this network (section 3.4)."""
        return study.rank(self.embed(study.test, study.chips_dir, study.runs_dir / "embeddings"))


def choose(preset: str, config: TrainConfig, name: str = "", weights: str = "") -> Descriptor:
    """The descriptor that a notebook's parameters name; the default of each where it is empty.

    Of preset "paper" that is MegaDescriptor-L-384. Else it is the backbone of `config` with the
    weights that its training starts from, seeing photos of its native size.
    """
    paper = preset == "paper"
    chosen = name or (MEGADESCRIPTOR if paper else config.backbone)
    if name or weights or paper:
        return _with_weights(chosen, weights)
    what = {True: "ImageNet", False: "random weights"}.get(config.pretrained, "pretrained")
    size = known(chosen).input_size[1]
    return Descriptor(chosen, config.pretrained, f"{chosen} ({what}, {size} px)")


def named(word: str) -> Descriptor:
    """The descriptor that a word of a list names: NAME, NAME=FILE or NAME=random.

    It has the name's own weights, those of a safetensors file, or weights drawn at random.
    """
    name, _, weights = word.partition("=")
    return _with_weights(name, weights)


def _with_weights(name: str, weights: str) -> Descriptor:
    place = re.sub(r"/(model|weights)\.safetensors$", "", name)
    short = place.rpartition("/")[2].rpartition(":")[2]
    if weights == "random":
        return Descriptor(name, False, f"{short} (random weights)")
    if weights:
        return Descriptor(name, weights, f"{short} ({Path(weights).name})")
    return Descriptor(name, True, short)


def measured(study: Study, chosen: Sequence[Descriptor]) -> tuple[pd.DataFrame, list[str]]:
    """Descriptors on the test set of a study, and a sentence on each that can't be had.

    Columns descriptor (its title), parameters, pixels (of a side), length (of an embedding),
    species, queries, top_1, top_1_low, top_1_high: the mean over species in percent, with its 95 %
    interval.
    """
    rows, missing = [], []
    for own in chosen:
        try:
            network, preprocess = own.load()
        except ValueError as error:
            missing.append(f"Not measured: {error}.")
            continue
        vectors = own.embed(study.test, study.chips_dir, study.runs_dir / "embeddings")
        table = compare({"top_1": study.rank(vectors)})
        facts = _facts(own.title, network, preprocess) | {"length": vectors.shape[1]}
        mean = table.iloc[-1][["queries", *(f"top_1{end}" for end in ENDS)]]
        rows.append(facts | {"species": len(table) - 1} | mean.to_dict())
    return pd.DataFrame(rows), missing


def ours(study: Study, table: pd.DataFrame, words: Mapping[str, str]) -> pd.DataFrame:
    """Rows as of `measured` on our networks, columns `words` of a table of `compare`."""
    network, preprocess = study.untrained().run().load()
    rows = []
    for name, title in words.items():
        mean = table.iloc[-1][["queries", *(f"{name}{end}" for end in ENDS)]]
        facts = _facts(title, network, preprocess) | {"length": network.n_features}
        facts |= {"species": table["species"][:-1].nunique()}
        rows.append(
            facts | dict(zip(["queries", *(f"top_1{end}" for end in ENDS)], mean, strict=True))
        )
    return pd.DataFrame(rows)


def _facts(title: str, network: nn.Module, preprocess: Preprocess) -> dict[str, object]:
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"descriptor": title, "parameters": parameters, "pixels": preprocess.size}
