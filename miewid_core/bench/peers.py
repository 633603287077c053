"""Embedding and training from photos, beside the textbook's loops and packages as installed.

wildlife-tools and pytorch-metric-learning have equal photos, network, batch, augmentation and loss
(ArcFace with one center a class, which all of them have), on a CPU without further processes. A
`use_*` function below is what a user of a package writes: `lines` counts them. On a GPU there are
the paper's preset, and the matrix products that bound it.
"""

import dataclasses
import functools
import inspect
import itertools
import re

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from miewid_core.bench import evaluation, step
from miewid_core.bench.measuring import FOLDER, Run, Task
from miewid_core.bench.photos import after_first_pass, augmented_batches, catalog, chips_of, drawn
from miewid_core.bench.textbook import Network, Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.config import TrainConfig, preset
from miewid_core.evaluation import embed
from miewid_core.files import replacing
from miewid_core.machine import default_device, keep_freed_memory
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.training import Trainer

MARGIN, SCALE = 0.2, 24.0
CHIPS = FOLDER / "chips"


def networks(preset_name: str) -> tuple[MiewIDNet, Network]:
    """Ours, and the textbook's with the same weights."""
    config, device = preset(preset_name), default_device()
    torch.manual_seed(0)
    ours = MiewIDNet(config.backbone).to(device, memory_format=torch.channels_last).eval()
    plain = Network(config.backbone).to(device).eval()
    plain.begin_as(ours)
    return ours, plain


@torch.no_grad()
def textbook_embeddings(network: Network, chips: Dataset) -> np.ndarray:
    """Embeddings (N, D) as usually computed."""
    device = next(network.parameters()).device
    return torch.cat([network(x.to(device)).cpu() for x, _ in DataLoader(chips, 64)]).numpy()


def prepare_embedding(way: str, photos: int, preset_name: str, workers: int = 0) -> Run:
    """What is timed: from photos, or (ours, and the network alone) from chips that are there."""
    config, rows = preset(preset_name), catalog(photos)
    ours, plain = networks(preset_name)
    chips = chips_of(rows, config.image_size)
    if way == "textbook":
        chips = Photos(rows, [0] * photos, config.image_size)
        run = functools.partial(textbook_embeddings, plain, chips)
    elif way == "textbook, network alone":
        turned = [(chip.permute(2, 0, 1), label) for chip, label in chips]
        run = functools.partial(textbook_embeddings, plain, turned)
    else:
        preprocess = Preprocess.of(config.backbone, config.image_size)
        options = {"device": default_device(), "workers": workers}
        run = functools.partial(embed, ours, preprocess, chips, **options)
    run()
    return after_first_pass(run, rows, config.image_size) if way == "ours, first pass" else run


def embeddings(way: str) -> list[np.ndarray] | None:
    """Two embeddings, of equal chips; what photos cost is in `photos`."""
    compared = way in ("ours", "textbook, network alone")
    return [prepare_embedding(way, 2, "demo")()] if compared else None


def prepare_epoch(
    way: str, preset_name: str, photos: int, batch: int, classes: int, workers: int
) -> Run:
    """What is timed: an epoch, photos to weights, after three steps that don't count."""
    config = preset(preset_name, pretrained=False, batch_size=batch, optimizer="adam")
    given = catalog(photos), np.arange(photos) % classes, config.image_size, batch
    batches = augmented_batches(way, *given, 0 if way == "textbook" else workers)
    if way == "ours":
        keep_freed_memory()
        learn = functools.partial(step.our_step, step.trainer(config, classes))
    else:
        learn, *_ = step.textbook(config, classes)
    for chips, labels in itertools.islice(batches, 3):
        learn(chips, labels)
    return lambda: [learn(chips, labels) for chips, labels in batches]


def prepare_product(way: str, side: int) -> Run:
    """What is timed: a product of square matrices in bfloat16 on a GPU, else in float32."""
    device = default_device()
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=kind)

    def run() -> None:
        factor @ factor
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run


def settings(preset_name: str, batch: int) -> TrainConfig:
    """A preset with the loss and the optimizer that all packages have."""
    loss = {"sub_centers": 1, "scale": SCALE, "margin_low": MARGIN, "margin_high": MARGIN}
    return preset(preset_name, pretrained=False, batch_size=batch, optimizer="adam", **loss)


def labelled(photos: int, kind: str, size: int) -> pd.DataFrame:
    """Catalog rows with `individual`, four photos each; "cut before": PNGs of `size` pixels."""
    rows = drawn(photos).assign(individual=np.arange(photos) // 4)
    if kind != "cut before":
        return rows
    store, paths = ChipStore(CHIPS, size), []
    for number, key in enumerate(store.build(rows)):
        paths.append(FOLDER / "cut" / str(size) / f"{number:04}.png")
        if not paths[-1].exists():
            with replacing(paths[-1]) as temporary:
                Image.fromarray(store.read(key)).save(temporary, "PNG")
    return rows.assign(path=[str(path) for path in paths], x=0, y=0, w=size, h=size)


def use_ours_to_embed(rows: pd.DataFrame, config: TrainConfig, network: MiewIDNet) -> np.ndarray:
    """Embeddings (N, D)."""
    store = ChipStore(CHIPS, config.image_size)
    chips = ChipDataset(store, store.build(rows))
    preprocess = Preprocess.of(config.backbone, config.image_size)
    return embed(network, preprocess, chips, config.batch_size)


def use_ours_to_train(rows: pd.DataFrame, config: TrainConfig, network: MiewIDNet) -> Run:
    """A function that trains for an epoch."""
    store = ChipStore(CHIPS, config.image_size)
    labels, counts = rows["individual"].to_numpy(), np.bincount(rows["individual"])
    chips = ChipDataset(store, store.build(rows), labels, augment=True)
    batches = loader(chips, Batches(len(rows), config.batch_size, 0), 0)
    trainer = Trainer(counts, config, 0, torch.device("cpu"))
    return lambda: trainer.epoch(batches, lambda photos: None)


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
        "evaluation": [evaluation.ours],
    },
    "wildlife-tools": {
        "embedding": [use_wildlife_tools_to_embed],
        "epoch": [use_wildlife_tools_to_train, wildlife_tools_trainer],
        "evaluation": [evaluation.wildlife_tools],
    },
    "pytorch-metric-learning": {
        "embedding": [use_metric_learning_to_embed, Photos],
        "epoch": [use_metric_learning_to_train, metric_learning_trainer, Photos],
        "evaluation": [evaluation.metric_learning],
    },
}


def lines() -> pd.DataFrame:
    """Lines of code that a user writes for each stage: stage, way, lines (docstrings apart)."""
    rows = [
        (stage, way, sum(map(lines_of, written)))
        for way, stages in WRITTEN.items()
        for stage, written in stages.items()
    ]
    return pd.DataFrame(rows, columns=["stage", "way", "lines"])


def lines_of(written: object) -> int:
    """Lines of a function or class but for docstrings, comments and empty ones."""
    words = re.sub(r'""".*?"""', "", inspect.getsource(written), flags=re.DOTALL)
    return len(re.findall(r"^ *[^ #\n]", words, re.MULTILINE))


def prepare_peers(way: str, stage: str, kind: str, size: int, preset_name: str, batch: int) -> Run:
    """What is timed: embedding or an epoch of `size` photos, or evaluating `size` embeddings."""
    if stage == "evaluation":
        return evaluation.prepare_evaluation(way, size, evaluation.DIM, "six each")
    config, package = settings(preset_name, batch), way.removesuffix(", first pass")
    rows, use = labelled(size, kind, config.image_size), WRITTEN[package][stage][0]
    network = networks(preset_name)[package != "ours"]
    run = functools.partial(use, rows, config, network)
    if stage == "epoch":
        run = run()
    run()
    return run if way == package else after_first_pass(run, rows, config.image_size)


def answer(way: str) -> list[object] | None:
    """Embeddings, the losses of three steps, and shares.

    They are of chips "cut before": no package resizes these, so that all have equal pixels.
    """
    if way not in WRITTEN:
        return None
    config = settings("demo", 8)
    rows = labelled(8, "cut before", config.image_size)
    found = WRITTEN[way]["embedding"][0](rows, config, networks("demo")[way != "ours"])
    return [found, three_losses(way, rows), *evaluation.shares(way)]


def three_losses(way: str, rows: pd.DataFrame) -> list[float]:
    """Losses of three steps with one batch from equal weights, photos not augmented."""
    config = dataclasses.replace(settings("demo", len(rows)), peak_rate=1e-4)
    chips = chips_of(rows, config.image_size, labels=rows["individual"].to_numpy())
    pixels, labels = (torch.tensor(np.stack(part)) for part in zip(*chips, strict=True))
    ours = step.trainer(config, rows["individual"].nunique())
    if way == "ours":
        return [step.our_step(ours, pixels, labels) for _ in range(3)]
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


WAYS = ("ours", "ours, first pass", "wildlife-tools", "pytorch-metric-learning")


def cases(photos: int, embeddings: int, **options: object) -> list[dict[str, object]]:
    """Each stage, of photos of either kind; the first pass where there is something to cut."""
    kinds = {"12 megapixels": WAYS, "cut before": tuple(WRITTEN)}
    return [
        *(
            {"stage": stage, "kind": kind, "size": photos, "ways": ways} | options
            for stage in ("embedding", "epoch")
            for kind, ways in kinds.items()
        ),
        {"stage": "evaluation", "kind": "embeddings", "size": embeddings, "ways": tuple(WRITTEN)}
        | options,
    ]


PEERS = Task(
    "peers",
    WAYS,
    {
        "quick": cases(8, 300, preset_name="demo", batch=4),
        "full": cases(48, 5000, preset_name="compact", batch=16),
    },
    prepare_peers,
    answer,
    allowed=1e-3,
)
EMBEDDING = Task(
    "embedding",
    ("ours", "ours, first pass", "textbook", "textbook, network alone"),
    {
        "quick": [{"photos": 6, "preset_name": "demo"}],
        "full": [{"photos": 24, "preset_name": "compact"}],
    },
    prepare_embedding,
    embeddings,
    allowed=1e-4,
)
PAPER = {"preset_name": "paper", "photos": 2240, "workers": 8}
TINY = {"preset_name": "demo", "photos": 6, "workers": 0}
EPOCH = Task(
    "epoch",
    ("ours", "textbook", "textbook, as many workers"),
    {
        "quick": [TINY | {"batch": 3, "classes": 20}],
        "full": [PAPER | {"batch": 112, "classes": 37_138}],
    },
    prepare_epoch,
    step.losses,  # the same network and loss; how photos differ is in `photos`
    allowed=step.STEP.allowed,
    gpu=True,
)
GPU_EMBEDDING = Task(
    "gpu_embedding",
    ("ours", "textbook, network alone"),
    {"quick": [TINY], "full": [PAPER]},
    prepare_embedding,
    embeddings,
    allowed=0.05,  # bfloat16 on a GPU
    gpu=True,
)
LARGE = 8192  # side of the matrices whose product nothing exceeds
PRODUCT = Task(
    "gpu_product",
    ("ours",),
    {"quick": [{"side": 64}], "full": [{"side": LARGE}]},
    prepare_product,
    calls=20,
    gpu=True,
)
