"""A timm backbone by its name, and what timm knows of it."""

import timm
from timm.models import PretrainedCfg
from torch import nn


def known(name: str) -> PretrainedCfg:
    """timm's settings of a backbone; ValueError if there is none, so that none is looked for."""
    try:
        found = timm.get_pretrained_cfg(name) if isinstance(name, str) else None
    except RuntimeError:  # an architecture without weights of that tag
        found = None
    if found is None:
        raise ValueError(
            f"timm {timm.__version__} has no backbone {name!r}: choose one of timm.list_models(), "
            "or update timm"
        )
    return found


def created(name: str, pretrained: bool, image_size: int | None) -> nn.Module:
    """The backbone without its head and pooling; `pretrained`: with timm's weights, downloaded.

    `image_size` matters only to backbones that are built for one size. Raises ValueError for a name
    that timm lacks, and where the weights can't be had.
    """
    fixed = known(name).to_dict().get("fixed_input_size", False)
    size = {"img_size": image_size} if fixed and image_size else {}
    try:
        return timm.create_model(name, num_classes=0, global_pool="", pretrained=pretrained, **size)
    except OSError as error:
        raise ValueError(
            f"the weights of {name} could not be downloaded ({error}); give pretrained= a local "
            "safetensors file, or False (for notebook 10's second network other_pretrained= a "
            "file, or from_scratch=True)"
        ) from error
