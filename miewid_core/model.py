"""MiewID: a timm backbone, generalised-mean pooling and BatchNorm (section 4, A.1)."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from miewid_core.files import replacing
from miewid_core.photos import resize

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

FORMAT = 1
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RELEASED = {"backbone": "efficientnetv2_rw_m", "size": 440, "mean": IMAGENET[0], "std": IMAGENET[1]}
LARGEST = 10_000  # pixels of a side, more than any network takes
PICKLED = {".bin", ".pth", ".pt", ".ckpt", ".pkl"}


def known(name: str) -> "PretrainedCfg":
    """timm's settings of a backbone; ValueError if there is none, so that none is looked for."""
    import timm  # two seconds: not for saved embeddings

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
    import timm  # as above

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


class GeM(nn.Module):
    """Generalised-mean pooling of (B, C, ...) to (B, C): mean(x ** p) ** (1 / p), p learned."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p, self.eps = nn.Parameter(torch.full((1,), p)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool over all but the first two axes, in float32 whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            powers = x.float().clamp(min=self.eps).pow(self.p)
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, n_features) float32, not normalised."""
        return self.bn(self.pooling(self._channels_first(self.backbone.forward_features(x))))

    def _channels_first(self, features: torch.Tensor) -> torch.Tensor:
        if features.ndim == 3:  # tokens (B, T, C), class and register tokens first
            prefix = getattr(self.backbone, "num_prefix_tokens", 0)
            return features[:, prefix:].transpose(1, 2)
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2)
        return features


def _backbone(name: str, pretrained: bool | str | Path, image_size: int | None) -> nn.Module:
    made = created(name, pretrained is True, image_size)
    if not isinstance(pretrained, bool):
        head = made.pretrained_cfg["classifier"]
        heads = tuple(f"{part}." for part in ([head] if isinstance(head, str) else head or ()))
        state = {k: v for k, v in read_tensors(pretrained).items() if not k.startswith(heads)}
        load_exactly(made, state, pretrained)
    return made


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file by name. Raises ValueError for pickled or unreadable files."""
    refuse_pickle(path)
    try:
        return load_file(path)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error


def refuse_pickle(path: str | Path) -> None:
    """Raise ValueError where a file's name is one of pickled weights."""
    if Path(path).suffix.lower() in PICKLED:
        raise ValueError(
            f"{Path(path).name} is a pickle, which can run code when read. Convert it once, where "
            'you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "x.'
            'safetensors")'
        )


def load_exactly(module: nn.Module, state: dict[str, torch.Tensor], source: str | Path) -> None:
    """Load a state dict whose names, shapes and kinds all fit, and whose values are finite.

    Raises ValueError with a list of those that don't.
    """
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in own]
    both = {key: (state[key], value) for key, value in own.items() if key in state}
    faults += [
        f"{key} has shape {tuple(given.shape)}, not {tuple(value.shape)}"
        for key, (given, value) in both.items()
        if given.shape != value.shape
    ]
    faults += [f"{key} is not finite" for key, (given, _) in both.items() if not _finite(given)]
    faults += [
        f"{key} is of {given.dtype}, not {value.dtype}"
        for key, (given, value) in both.items()
        if given.is_floating_point() != value.is_floating_point()
    ]
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise ValueError(f"{source} does not fit: {', '.join(faults[:10])}{more}")
    module.load_state_dict(state)


def _finite(values: torch.Tensor) -> bool:
    return not values.is_floating_point() or bool(values.float().isfinite().all())


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """Photo to network input: RGB, resized to a square without keeping the aspect, normalised."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, backbone: str, size: int) -> "Preprocess":
        """The preprocessing that a backbone's weights expect; MiewID's is ImageNet's."""
        if backbone == RELEASED["backbone"]:
            return cls(size, *IMAGENET)
        pass  # as above

        config = known(backbone)
        return cls(size, tuple(config.mean), tuple(config.std))

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """A PIL image or (H, W, 3) uint8 array to (3, size, size) float32."""
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        return self.batch(torch.from_numpy(resize(pixels, self.size))[None])[0]

    def batch(self, chips: torch.Tensor) -> torch.Tensor:
        """Chips (B, S, S, 3) uint8 to (B, 3, S, S) float32 on their device, channels_last."""
        mean, std = (
            torch.tensor(values, device=chips.device) * 255 for values in (self.mean, self.std)
        )
        return ((chips.float() - mean) / std).permute(0, 3, 1, 2)


def save(model: MiewIDNet, preprocess: Preprocess, path: Path) -> None:
    """Write weights as safetensors, and what is needed to rebuild the network as metadata."""
    config = {"format": FORMAT, "backbone": model.name} | dataclasses.asdict(preprocess)
    state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    with replacing(path) as temporary:
        # one entry only: safetensors writes several in random order, and the bytes would vary
        save_file(state, temporary, {"config": json.dumps(config)})


def load(path: str | Path, device: str | torch.device = "cpu") -> tuple[MiewIDNet, Preprocess]:
    """The network of a file that `save` wrote or of released MiewID weights, and its Preprocess.

    A file without our metadata is taken for conservationxlabs/miewid-msv2 or -msv3: 440 px
    (section 4), ImageNet mean and std. Nothing is downloaded. Raises ValueError for a file that
    does not fit exactly, that is pickled or damaged, or that a newer version wrote.
    """
    state = read_tensors(path)
    config = _config(path)
    preprocess = Preprocess(config["size"], tuple(config["mean"]), tuple(config["std"]))
    model = MiewIDNet(config["backbone"], False, preprocess.size)
    load_exactly(model, state, path)
    return model.to(device, memory_format=torch.channels_last).eval(), preprocess


def _config(path: str | Path) -> dict:
    """What `save` wrote beside the weights, or RELEASED where there is nothing; checked."""
    with safe_open(path, framework="pt") as opened:
        text = (opened.metadata() or {}).get("config")
    if text is None:
        return RELEASED
    try:
        config = json.loads(text)
        newer = config["format"] > FORMAT
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: its metadata is damaged ({error!r}); save it again") from error
    if newer:
        raise ValueError(f"{path} was written by a newer miewid_core: update this one")
    if not RELEASED.keys() <= config.keys():
        missing = ", ".join(sorted(RELEASED.keys() - config.keys()))
        raise ValueError(f"{path}: its metadata is damaged (no {missing}); save it again")
    if not _usable(config["size"], config["mean"], config["std"]):
        what = ", ".join(f"{key} {config[key]}" for key in ("size", "mean", "std"))
        raise ValueError(f"{path}: its metadata is damaged ({what}); save it again")
    return config


def _usable(size: object, mean: object, std: object) -> bool:
    """Whether these are a side in pixels, and two times three numbers, the last three above 0."""
    try:
        numbers = np.array([mean, std])
    except ValueError:  # not of one length
        return False
    if not isinstance(size, int) or numbers.shape != (2, 3) or numbers.dtype.kind not in "if":
        return False
    return 1 <= size <= LARGEST and bool(np.isfinite(numbers).all() and (numbers[1] > 0).all())
