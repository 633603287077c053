"""Embedding and training from photos, beside the textbook's loops and packages as installed.

All have equal photos, network, batch, augmentation and loss (ArcFace with one center a class, which
all of them have), on a CPU without further processes. A `use_*` function below is what a user of a
package writes: `report.lines` counts them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from miewid_core.bench import evaluation, step
from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.bench.photos import after_first_pass, chips_of, demo, drawn
from miewid_core.bench.textbook import Network, Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.config import TrainConfig, preset
from miewid_core.evaluation import embed
from miewid_core.files import replacing
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.training import Trainer

MARGIN, SCALE = 0.2, 24.0
CUT = "12 megapixels, cut before"  # to nothing but the animal
CHIPS = FOLDER / "chips"


def networks(preset_name: str) -> tuple[MiewIDNet, Network]:
    """Ours, and the textbook's with the same weights."""
    config, device = preset(preset_name), default_device()
    torch.manual_seed(0)
    ours = MiewIDNet(config.backbone).to(device, memory_format=torch.channels_last).eval()
    plain = Network(config.backbone).to(device).eval()
    plain.begin_as(ours)
    return ours, plain


def workers() -> int:
    """Processes that read photos: none beside a CPU, whose cores they would take."""
    return 8 if default_device().type == "cuda" else 0


def settings(preset_name: str, batch: int) -> TrainConfig:
    """A preset with the loss and the optimizer that all packages have."""
    loss = {"sub_centers": 1, "scale": SCALE, "margin_low": MARGIN, "margin_high": MARGIN}
    return preset(preset_name, pretrained=False, batch_size=batch, optimizer="adam", **loss)


def labelled(photos: int, kind: str, size: int) -> pd.DataFrame:
    """Catalog rows with `individual`, four photos each.

    `kind`: "12 megapixels", "demo", and with ", cut before" PNGs of `size` pixels.
    """
    rows = (demo if kind.startswith("demo") else drawn)(photos)
    rows = rows.assign(individual=np.arange(photos) // 4)
    if not kind.endswith("cut before"):
        return rows
    store, paths = ChipStore(CHIPS, size), []
    for key in store.build(rows):
        paths.append(FOLDER / "cut" / str(size) / f"{key}.png")
        if not paths[-1].exists():
            with replacing(paths[-1]) as temporary:
                Image.fromarray(store.read(key)).save(temporary, "PNG")
    return rows.assign(path=[str(path) for path in paths], x=0, y=0, w=size, h=size)


def use_ours_to_embed(rows: pd.DataFrame, config: TrainConfig, network: MiewIDNet) -> np.ndarray:
    """Embeddings (N, D)."""
    store = ChipStore(CHIPS, config.image_size)
    chips = ChipDataset(store, store.build(rows))
    preprocess = Preprocess.of(config.backbone, config.image_size)
    return embed(network, preprocess, chips, config.batch_size, default_device(), workers())


def use_ours_to_train(rows: pd.DataFrame, config: TrainConfig, network: MiewIDNet) -> Run:
    """A function that trains for an epoch."""
    store = ChipStore(CHIPS, config.image_size)
    labels, counts = rows["individual"].to_numpy(), np.bincount(rows["individual"])
    chips = ChipDataset(store, store.build(rows), labels, augment=True)
    batches = loader(chips, Batches(len(rows), config.batch_size, 0), workers())
    trainer = Trainer(counts, config, 0, default_device())
    return lambda: trainer.epoch(batches, lambda photos: None)


@torch.no_grad()
def use_textbook_to_embed(rows: pd.DataFrame, config: TrainConfig, network: Network) -> np.ndarray:
    """Embeddings (N, D)."""
    photos = Photos(rows, rows["individual"].to_numpy(), config.image_size)
    batches = DataLoader(photos, config.batch_size, num_workers=workers())
    return torch.cat([network(chips.to(default_device())).cpu() for chips, _ in batches]).numpy()


def use_textbook_to_train(rows: pd.DataFrame, config: TrainConfig, network: Network) -> Run:
    """A function that trains for an epoch."""
    labels, transform = rows["individual"].to_numpy(), augmentation(config.image_size)
    photos = Photos(rows, labels, config.image_size, transform)
    batches = DataLoader(photos, config.batch_size, shuffle=True, num_workers=workers())
    learn, *_ = step.textbook(config, rows["individual"].nunique())
    return lambda: [learn(chips, labels) for chips, labels in batches]


def use_wildlife_tools_to_embed(
    rows: pd.DataFrame, config: TrainConfig, network: Network
) -> np.ndarray:
    """Embeddings (N, D)."""
    from wildlife_tools.data import WildlifeDataset
    from wildlife_tools.features import DeepFeatures

    metadata = rows.assign(identity=rows["individual"], bbox=rows[list("xywh")].values.tolist())
    transform = v2.Compose([v2.Resize([config.image_size] * 2), v2.PILToTensor()])
    dataset = WildlifeDataset(metadata, img_load="bbox", transform=transform)
    return DeepFeatures(network, config.batch_size, num_workers=0)(dataset)


def use_wildlife_tools_to_train(rows: pd.DataFrame, config: TrainConfig, network: Network) -> Run:
    """A function that trains for an epoch."""
    from wildlife_tools.data import WildlifeDataset

    metadata = rows.assign(identity=rows["individual"], bbox=rows[list("xywh")].values.tolist())
    augment = augmentation(config.image_size)
    augmented = v2.Lambda(lambda photo: augment(image=np.asarray(photo))["image"])
    channels_first = v2.Lambda(lambda chip: torch.from_numpy(chip.transpose(2, 0, 1).copy()))
    transform = v2.Compose([v2.Resize([config.image_size] * 2), augmented, channels_first])
    dataset = WildlifeDataset(metadata, img_load="bbox", transform=transform)
    return wildlife_tools_trainer(dataset, config, network, dataset.num_classes).train


def wildlife_tools_trainer(
    dataset: Dataset, config: TrainConfig, network: Network, classes: int
) -> object:
    """Its trainer with its ArcFace."""
    from wildlife_tools.train import ArcFaceLoss, BasicTrainer

    objective = ArcFaceLoss(classes, network.bn.num_features, MARGIN, SCALE)
    weights = itertools.chain(network.parameters(), objective.parameters())
    optimizer = torch.optim.Adam(weights, lr=config.peak_rate)
    options = {"batch_size": config.batch_size, "num_workers": 0, "device": "cpu"}
    return BasicTrainer(dataset, network, objective, optimizer, 1, **options)


def use_metric_learning_to_embed(
    rows: pd.DataFrame, config: TrainConfig, network: Network
) -> np.ndarray:
    """Embeddings (N, D); the package reads no photos: the textbook's Dataset does."""
    from pytorch_metric_learning.testers import GlobalEmbeddingSpaceTester

    dataset = Photos(rows, rows["individual"].to_numpy(), config.image_size)
    tester = GlobalEmbeddingSpaceTester(
        batch_size=config.batch_size, dataloader_num_workers=0, normalize_embeddings=False
    )
    return tester.get_all_embeddings(dataset, network, return_as_numpy=True)[0]


def use_metric_learning_to_train(rows: pd.DataFrame, config: TrainConfig, network: Network) -> Run:
    """A function that trains for an epoch."""
    transform = augmentation(config.image_size)
    dataset = Photos(rows, rows["individual"].to_numpy(), config.image_size, transform)
    return metric_learning_trainer(dataset, config, network, rows["individual"].nunique()).train


def metric_learning_trainer(
    dataset: Dataset, config: TrainConfig, network: Network, classes: int
) -> object:
    """Its trainer for a loss without a miner."""
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.trainers import MetricLossOnly

    head = ArcFaceLoss(classes, network.bn.num_features, margin=np.degrees(MARGIN), scale=SCALE)
    return MetricLossOnly(
        models={"trunk": network},
        optimizers={
            "trunk_optimizer": torch.optim.Adam(network.parameters(), lr=config.peak_rate),
            "metric_loss_optimizer": torch.optim.Adam(head.parameters(), lr=config.peak_rate),
        },
        batch_size=config.batch_size,
        loss_funcs={"metric_loss": head},
        dataset=dataset,
        dataloader_num_workers=0,
    )


WRITTEN = {  # by package and stage: what its user calls, and what else is to be written for it
    "ours": {
        "embedding": [use_ours_to_embed],
        "epoch": [use_ours_to_train],
        "ranking": [evaluation.ours],
    },
    "textbook": {"embedding": [use_textbook_to_embed], "epoch": [use_textbook_to_train]},
    "wildlife-tools": {
        "embedding": [use_wildlife_tools_to_embed],
        "epoch": [use_wildlife_tools_to_train, wildlife_tools_trainer],
        "ranking": [evaluation.wildlife_tools],
    },
    "pytorch-metric-learning": {
        "embedding": [use_metric_learning_to_embed, Photos],
        "epoch": [use_metric_learning_to_train, metric_learning_trainer, Photos],
        "ranking": [evaluation.metric_learning],
    },
}


def prepare_peers(way: str, stage: str, kind: str, size: int, preset_name: str, batch: int) -> Run:
    """What is timed: embedding or an epoch of `size` photos."""
    config, package = settings(preset_name, batch), way.removesuffix(", first pass")
    rows, use = labelled(size, kind, config.image_size), WRITTEN[package][stage][0]
    network = networks(preset_name)[package != "ours"]
    run = functools.partial(use, rows, config, network)
    if stage == "epoch":
        run = run()
    run()
    return run if way == package else after_first_pass(run, rows, config.image_size)


def answer(way: str) -> list[object] | None:
    """Embeddings, and the losses of three steps.

    They are of chips "cut before": no package resizes these, so that all have equal pixels.
    """
    if way not in WRITTEN:
        return None
    config = settings("demo", 8)
    rows = labelled(8, "demo, cut before", config.image_size)
    found = WRITTEN[way]["embedding"][0](rows, config, networks("demo")[way != "ours"])
    return [found, three_losses(way, rows)]


def three_losses(way: str, rows: pd.DataFrame) -> list[float]:
    """Losses of three steps with one batch from equal weights, photos not augmented."""
    config = dataclasses.replace(settings("demo", len(rows)), peak_rate=1e-4)
    chips = chips_of(rows, config.image_size, labels=rows["individual"].to_numpy())
    pixels, labels = (torch.tensor(np.stack(part)) for part in zip(*chips, strict=True))
    if way in ("ours", "textbook"):
        return step.losses(way, config, pixels, labels)
    ours = step.trainer(config, rows["individual"].nunique())
    network, found = Network(config.backbone), []
    network.begin_as(ours.model)
    batch = list(zip(pixels.permute(0, 3, 1, 2), labels.tolist(), strict=True))
    centers = ours.head.weight.data.T.clone()
    if way == "wildlife-tools":
        made = wildlife_tools_trainer(batch, config, network, centers.shape[1])
        made.objective.loss.W.data, made.epochs = centers, 3
        made.epoch_callback = lambda epoch_data, **_: found.append(
            epoch_data["train_loss_epoch_avg"]
        )
        made.train()
    else:
        made = metric_learning_trainer(batch, config, network, centers.shape[1])
        made.loss_funcs["metric_loss"].W.data = centers
        made.end_of_iteration_hook = lambda own: found.append(own.losses["total_loss"].item())
        made.train(num_epochs=3)
    return [float(loss) for loss in found]


WAYS = ("ours", "ours, first pass", "textbook", "wildlife-tools", "pytorch-metric-learning")


def cases(photos: int, kinds: Sequence[str], **options: object) -> list[dict[str, object]]:
    """Each stage, of photos of each kind; the first pass where there is something to cut."""
    return [
        {"stage": stage, "kind": kind, "size": photos}
        | options
        | {"ways": tuple(WRITTEN) if kind.endswith("cut before") else WAYS}
        for stage in ("embedding", "epoch")
        for kind in kinds
    ]


PEERS = Task(
    "peers",
    WAYS,
    {
        "quick": cases(8, ["demo"], preset_name="demo", batch=4),
        "full": cases(24, ["12 megapixels", CUT], preset_name="compact", batch=12),
    },
    prepare_peers,
    answer,
    allowed=1e-3,
)


def prepare_gpu(way: str, stage: str, size: int, preset_name: str, batch: int) -> Run:
    """What is timed: a stage of `size` photos, or a product of matrices with `size` rows."""
    if stage == "product":
        return prepare_product(size)
    return prepare_peers(way, stage, "demo", size, preset_name, batch)


def prepare_product(side: int) -> Run:
    """A product of square matrices in bfloat16 on a GPU, else in float32."""
    device = default_device()
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=kind)

    def run() -> None:
        factor @ factor
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run


def gpu_cases(preset_name: str, photos: int, batch: int, side: int) -> list[dict[str, object]]:
    """A product, and a case for each stage."""
    options = {"preset_name": preset_name, "batch": batch}
    stages = ({"stage": stage, "size": photos} | options for stage in ("embedding", "epoch"))
    return [{"stage": "product", "size": side, "ways": ("ours",)} | options, *stages]


# the paper's preset on a GPU, and the bare products that nothing exceeds
GPU = Task(
    "gpu",
    ("ours", "textbook"),
    {"quick": gpu_cases("demo", 8, 4, 64), "full": gpu_cases("paper", 2240, 112, 8192)},
    prepare_gpu,
    answer,
    allowed=0.05,  # bfloat16 on a GPU
    gpu=True,
)
