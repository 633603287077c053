"""Weights in the forms that people have them: a run's, and those of MiewID's authors."""

import json
import logging
from pathlib import Path

import numpy as np
import torch

from miewid_core.model import (
    CONVERT,
    MiewIDNet,
    Preprocess,
    State,
    load,
    load_exactly,
    read_tensors,
    saved_settings,
    without_head,
)

# all that a checkpoint of the authors' code holds beside tensors and plain Python: a score
SCALAR, KINDS = np.float64().__reduce__()[0], [np.dtype, type(np.dtype(np.float64))]
NUMPY = [*KINDS, *((SCALAR, f"numpy.{at}.multiarray.scalar") for at in ("core", "_core"))]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation
RELEASED = {"backbone": "efficientnetv2_rw_m", "size": 440}  # the card of miewid-msv3
PICKLED = {".bin", ".pth", ".pt", ".ckpt", ".pkl"}
LOGGER = logging.getLogger(__name__)


def weights_file(path: str | Path) -> Path:
    """The file of weights that a path names: itself, or that of a folder of a run or the hub."""
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    of_run = path / "weights.safetensors"
    return of_run if of_run.is_file() else path / "model.safetensors"


def load_model(
    path: str | Path, device: str | torch.device = "cpu", size: int = 0
) -> tuple[MiewIDNet, Preprocess]:
    """The network of a file that `model.save` wrote or of MiewID's authors, and its Preprocess.

    A run's folder stands for the file in it. Theirs are a folder of the Hugging Face hub such as
    conservationxlabs/miewid-msv3 or its model.safetensors (a config.json beside it is read), and
    their code's training checkpoints (.pth, .bin), of which torch reads tensors and plain values
    alone (`weights_only`). Where they name no image size it is `size`, or else 440 px (section 4),
    which is logged; mean and deviation are ImageNet's. Nothing is downloaded, no code in a file is
    run. Raises ValueError for a file that does not fit exactly, that holds anything else, is
    damaged, or that a newer version wrote.
    """
    file = weights_file(path)
    if file.suffix.lower() in PICKLED:
        state, settings = _read_checkpoint(file)
    elif saved_settings(file):
        return load(file, device)
    else:
        state, settings = read_tensors(file), _hub(file)
    backbone, preprocess = _released(settings, file, size)
    network = MiewIDNet(backbone, False, preprocess.size)
    if hasattr(network.backbone, "cls_token"):
        raise ValueError(
            f"{file}: the authors' code embeds by {backbone}'s class token, not by GeM"
        )
    load_exactly(network, without_head(state, network.backbone, "backbone."), file)
    return network.to(device, memory_format=torch.channels_last).eval(), preprocess


def _hub(file: Path) -> dict:
    """The config.json beside a file of the hub, empty where there is none."""
    path = file.with_name("config.json")
    try:
        return dict(json.loads(path.read_bytes())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_checkpoint(path: Path) -> tuple[State, dict]:
    """Weights and configuration of the authors' training checkpoint, or weights alone."""
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    try:
        with torch.serialization.safe_globals(NUMPY):
            content = torch.load(path, map_location="cpu", weights_only=True)
        nested = "model_state_dict" in content
        state = dict(content["model_state_dict"] if nested else content)
        settings = dict(content.get("config", {})) if nested else {}
        strange = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    except Exception as error:  # an unpickler raises whatever the bytes make it
        told = f"{path.name} is a pickle, which can run code when read"
        raise ValueError(f"{told}; {CONVERT}") from error
    if strange:
        raise ValueError(f"{path} is no checkpoint of weights: {strange[0]} is no tensor")
    return state, settings


def _released(settings: dict, path: Path, size: int) -> tuple[str, Preprocess]:
    """Backbone and preprocessing by the authors' configuration, of a checkpoint or of the hub."""
    parts = [settings, settings.get("model_params"), settings.get("data")]
    named = {key: value for part in parts if isinstance(part, dict) for key, value in part.items()}
    backbone = named.get("model_name", RELEASED["backbone"])
    side = size or named.get("image_size") or named.get("img_size")
    if side is None:
        if backbone != RELEASED["backbone"]:
            raise ValueError(f"{path} names no image size: give it as size=")
        side = RELEASED["size"]
        LOGGER.warning("%s names no image size: taken for %d px, as released", path.name, side)
    if isinstance(side, list | tuple) and len(side) == 2 and side[0] == side[1]:
        side = side[0]
    try:
        return backbone, Preprocess(side, *IMAGENET)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its image size is {side}, no side in pixels") from error
