"""MiewID: a timm backbone, generalised-mean pooling and BatchNorm (section 4, A.1)."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from miewid_core.files import replacing

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

FORMAT = 1
LARGEST = 10_000  # pixels of a side, more than any network takes
RESIZINGS = "card", "plugin"
CONVERT = (  # a pickle can run code when it is read
    "convert it once, where you trust it: safetensors.torch.save_file("
    'torch.load(FILE, weights_only=True), "x.safetensors")'
)
State = dict[str, torch.Tensor]


def known(name: str) -> "PretrainedCfg":
    """timm's settings of a backbone; ValueError if there is none, so that none is looked for."""
    import timm  # two seconds: not for saved embeddings

    try:
        settings = timm.get_pretrained_cfg(name) if isinstance(name, str) else None
    except RuntimeError:  # an architecture without weights of that tag
        settings = None
    if settings is None:
        raise ValueError(
            f"timm {timm.__version__} has no backbone {name!r}: choose one of timm.list_models(), "
            "or update timm"
        )
    return settings


class GeM(nn.Module):
    """Generalised-mean pooling of (B, C, ...) to (B, C): mean(x ** p) ** (1 / p), p learned."""

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over all but the first two axes, in float32 whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            powers = x.float().clamp(min=1e-6).pow(self.p)
            # a channel without any signal is 0 in float32 once p passes 7: its root has no slope
            means = powers.flatten(2).mean(2).clamp(min=torch.finfo(torch.float32).tiny)
            return means.pow(1 / self.p)


class MiewIDNet(nn.Module):
    """Photos (B, 3, S, S) to embeddings (B, n_features); module names as in the released weights.

    `pretrained`: True downloads timm's ImageNet weights, a path reads them from a safetensors file,
    False draws them. `image_size` matters only to backbones of fixed size (Swin, ViT).
    """

    def __init__(
        self, backbone: str, pretrained: bool | str | Path = False, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.backbone = _backbone(backbone, pretrained, image_size)
        self.name = backbone
        self.pooling = GeM()
        self.bn = nn.BatchNorm1d(self.backbone.num_features)

    @property
    def n_features(self) -> int:
        """Length of an embedding."""
        return self.bn.num_features

    def first_layers(self, stages: int) -> list[nn.Module]:
        """The layers of the backbone's first `stages`, as timm groups them; its stem is the first.

        Raises ValueError where there aren't so many.
        """
        from timm.models import group_modules  # as above

        groups = group_modules(self.backbone, self.backbone.group_matcher(coarse=True))
        if stages >= len(groups):
            raise ValueError(f"{self.name} has {len(groups)} stages; freeze fewer than these")
        names = [name for stage in sorted(groups)[:stages] for name in groups[stage]]
        return [self.backbone.get_submodule(name) for name in names]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, n_features) float32, not normalised."""
        features = self.backbone.forward_features(x)  # (B, C, H, W), or as follows
        if features.ndim == 3:  # tokens (B, T, C), class and register tokens first
            prefix = getattr(self.backbone, "num_prefix_tokens", 0)
            features = features[:, prefix:].transpose(1, 2)
        elif getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        return self.bn(self.pooling(features))


def _backbone(name: str, pretrained: bool | str | Path, image_size: int | None) -> nn.Module:
    """The backbone without classifier and pooling; ValueError where its weights can't be had."""
    import timm  # as above

    fixed = known(name).to_dict().get("fixed_input_size", False)
    options = {"img_size": image_size} if fixed and image_size else {}
    options |= {"num_classes": 0, "global_pool": "", "pretrained": pretrained is True}
    try:
        backbone = timm.create_model(name, **options)
    except OSError as error:
        raise ValueError(
            f"the weights of {name} could not be downloaded ({error}); give pretrained= a local "
            "safetensors file, or False"
        ) from error
    if not isinstance(pretrained, bool):
        load_exactly(backbone, without_head(read_tensors(pretrained), backbone), pretrained)
    return backbone


def without_head(state: State, backbone: nn.Module, prefix: str = "") -> State:
    """The tensors of a timm network but for those of its classifier, whose names begin so."""
    head = backbone.pretrained_cfg["classifier"] or ()
    heads = tuple(f"{prefix}{part}." for part in ([head] if isinstance(head, str) else head))
    return {key: value for key, value in state.items() if not key.startswith(heads)}


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[safe_open]:
    """A safetensors file; ValueError where it is none or damaged, with the remedy for a pickle."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        told = f"{path} is no readable safetensors file ({error})"
        raise ValueError(f"{told}; if it is a pickle, {CONVERT}") from error


def read_tensors(path: str | Path) -> State:
    """Tensors of a safetensors file by name. Raises ValueError for pickled or unreadable files."""
    with opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def load_exactly(module: nn.Module, state: State, source: str | Path) -> None:
    """Load a state dict whose names, shapes and kinds all fit, and whose values are finite.

    Raises ValueError with a list of those that don't.
    """
    expected = module.state_dict()
    faults = [f"missing {key}" for key in expected if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in expected]
    for key, value in ((key, state[key]) for key in expected if key in state):
        like, is_float = expected[key], value.is_floating_point()
        if value.shape != like.shape:
            faults.append(f"{key} has shape {tuple(value.shape)}, not {tuple(like.shape)}")
        if is_float and not value.float().isfinite().all():
            faults.append(f"{key} is not finite")
        if is_float != like.is_floating_point():
            faults.append(f"{key} is of {value.dtype}, not {like.dtype}")
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ValueError(f"{source} does not fit: {', '.join(faults[:10])}{more}")
    module.load_state_dict(state)


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Photo to network input: RGB, resized to a square without keeping the aspect, normalised.

    `resizing`: "card" is bilinear with antialiasing, as the model card of the released weights has
    it; "plugin" is OpenCV's bilinear without antialiasing, as the authors'
    evaluation and the Wildbook plugin have it. Embeddings of the two don't match. Raises ValueError
    for a side, means or deviations that can't be.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resizing: str = "card"

    def __post_init__(self) -> None:
        possible = type(self.size) is int and 1 <= self.size <= LARGEST
        possible &= len(self.mean) == len(self.std) == 3 and min(self.std) > 0
        if not possible or not np.isfinite([*self.mean, *self.std]).all():
            raise ValueError(f"size {self.size}, mean {self.mean}, std {self.std}")
        if self.resizing not in RESIZINGS:
            raise ValueError(f"resizing is {self.resizing!r}; give 'card' or 'plugin'")

    @classmethod
    def of(cls, backbone: str, size: int) -> "Preprocess":
        """The preprocessing that a backbone's weights expect."""
        config = known(backbone)
        return cls(size, tuple(config.mean), tuple(config.std))

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """A PIL image or (H, W, 3) uint8 array to (3, size, size) float32."""
        from miewid_core.photos import resize  # a network alone doesn't need OpenCV

        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        chip = torch.from_numpy(resize(pixels, self.size, self.resizing))
        return self.batch(chip[None])[0]

    def batch(self, chips: torch.Tensor) -> torch.Tensor:
        """Chips (B, S, S, 3) uint8 to (B, 3, S, S) float32 on their device, channels_last."""
        mean, std = (
            torch.tensor(values, device=chips.device) * 255 for values in (self.mean, self.std)
        )
        return ((chips.float() - mean) / std).permute(0, 3, 1, 2)

    def record(self) -> dict[str, object]:
        """The fields as JSON has them; `resizing` only where it isn't "card", as in older files."""
        fields = dataclasses.asdict(self)
        if self.resizing == "card":
            del fields["resizing"]
        return fields


def save(model: MiewIDNet, preprocess: Preprocess, path: Path) -> None:
    """Write weights as safetensors, and what is needed to rebuild the network as metadata."""
    config = {"format": FORMAT, "backbone": model.name} | preprocess.record()
    state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(path) as temporary:
        # one entry only: safetensors writes several in random order, and the bytes would vary
        save_file(state, temporary, {"config": json.dumps(config)})


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[MiewIDNet, Preprocess]:
    """The network of a file that `save` wrote, in evaluation mode, and its Preprocess.

    Raises ValueError for a file that isn't one or doesn't fit exactly, is damaged, or was written
    by a newer version. `readers.weights.load_model` reads those of MiewID's authors, too.
    """
    saved = saved_settings(path)
    if saved is None:
        raise ValueError(f"{path} was not saved by this package: read it by load_model")
    backbone, preprocess = saved
    network = MiewIDNet(backbone, False, preprocess.size)
    load_exactly(network, read_tensors(path), path)
    return network.to(device, memory_format=torch.channels_last).eval(), preprocess


def saved_settings(path: str | Path) -> tuple[str, Preprocess] | None:
    """Backbone and preprocessing as `save` wrote them; None for weights of another origin."""
    with opened(path) as file:
        metadata = (file.metadata() or {}).get("config")
    if metadata is None:
        return None
    try:
        config = json.loads(metadata)
        if config["format"] <= FORMAT:
            mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
            resizing = config.get("resizing", "card")
            return config["backbone"], Preprocess(config["size"], mean, std, resizing)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: its metadata is damaged ({error!r}); save it again") from error
    raise ValueError(f"{path} was written by a newer miewid_core: update this one")
