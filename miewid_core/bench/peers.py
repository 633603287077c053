"""wildlife-tools and pytorch-metric-learning as they are installed, beside ours.

Each has equal photos, network, batch, augmentation and loss (ArcFace with one center a class, which
all of them have), on a CPU without further processes. A `use_*` function below is what a user of
the package writes: `lines` counts them.
"""

import dataclasses
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.transforms import v2

from miewid_core.bench import evaluation, step
from miewid_core.bench.embedding import networks
from miewid_core.bench.measuring import Task
from miewid_core.bench.photos import FOLDER, chips_of, drawn
from miewid_core.bench.textbook import Network, Photos
from miewid_core.chips import Batches, ChipDataset, ChipStore, augmentation, loader
from miewid_core.config import TrainConfig, preset
from miewid_core.evaluation import embed
from miewid_core.files import replacing
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.training import Trainer

SCALE, MARGIN = 24.0, 0.2
MEAN_LOSS = "train_loss_epoch_avg"
CHIPS = FOLDER / "chips"
Run = Callable[[], object]


def settings(preset_name: str, batch: int) -> TrainConfig:
    """A preset with the loss that all packages have."""
    loss = {"sub_centers": 1, "scale": SCALE, "margin_low": MARGIN, "margin_high": MARGIN}
    return preset(preset_name, pretrained=False, batch_size=batch, **loss)


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


def use_ours_to_train(rows: pd.DataFrame, config: TrainConfig) -> Run:
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
    wildlife = importlib.import_module("wildlife_tools.data")
    features = importlib.import_module("wildlife_tools.features")
    metadata = rows.assign(identity=rows["individual"], bbox=rows[list("xywh")].values.tolist())
    transform = v2.Compose([v2.Resize([config.image_size] * 2), v2.PILToTensor()])
    dataset = wildlife.WildlifeDataset(metadata, img_load="bbox", transform=transform)
    return features.DeepFeatures(network, config.batch_size, num_workers=0)(dataset)


def use_wildlife_tools_to_train(rows: pd.DataFrame, config: TrainConfig, network: Network) -> Run:
    """A function that trains for an epoch."""
    wildlife = importlib.import_module("wildlife_tools.data")
    metadata = rows.assign(identity=rows["individual"], bbox=rows[list("xywh")].values.tolist())
    augment = augmentation(config.image_size)
    augmented = v2.Lambda(lambda photo: augment(image=np.asarray(photo))["image"])
    transform = v2.Compose([v2.Resize([config.image_size] * 2), augmented, chip_first])
    dataset = wildlife.WildlifeDataset(metadata, img_load="bbox", transform=transform)
    return wildlife_tools_trainer(dataset, config, network, dataset.num_classes).train


def wildlife_tools_trainer(
    dataset: torch.utils.data.Dataset, config: TrainConfig, network: Network, classes: int
) -> object:
    """Its trainer with its ArcFace."""
    train = importlib.import_module("wildlife_tools.train")
    objective = train.ArcFaceLoss(classes, network.bn.num_features, MARGIN, SCALE)
    weights = itertools.chain(network.parameters(), objective.parameters())
    optimizer = torch.optim.Adam(weights, lr=config.peak_rate)
    options = {"batch_size": config.batch_size, "num_workers": 0, "device": "cpu"}
    return train.BasicTrainer(dataset, network, objective, optimizer, 1, **options)


def chip_first(chip: np.ndarray) -> torch.Tensor:
    """(S, S, 3) to (3, S, S)."""
    return torch.from_numpy(np.ascontiguousarray(chip.transpose(2, 0, 1)))


def use_metric_learning_to_embed(
    rows: pd.DataFrame, config: TrainConfig, network: Network
) -> np.ndarray:
    """Embeddings (N, D); the package reads no photos: the textbook's Dataset does."""
    testers = importlib.import_module("pytorch_metric_learning.testers")
    dataset = Photos(rows, rows["individual"].to_numpy(), config.image_size)
    tester = testers.GlobalEmbeddingSpaceTester(
        batch_size=config.batch_size, dataloader_num_workers=0, normalize_embeddings=False
    )
    return tester.get_all_embeddings(dataset, network, return_as_numpy=True)[0]


def use_metric_learning_to_train(rows: pd.DataFrame, config: TrainConfig, network: Network) -> Run:
    """A function that trains for an epoch."""
    transform = augmentation(config.image_size)
    dataset = Photos(rows, rows["individual"].to_numpy(), config.image_size, transform)
    return metric_learning_trainer(dataset, config, network, rows["individual"].nunique()).train


def metric_learning_trainer(
    dataset: torch.utils.data.Dataset, config: TrainConfig, network: Network, classes: int
) -> object:
    """Its trainer for a loss without a miner."""
    losses = importlib.import_module("pytorch_metric_learning.losses")
    trainers = importlib.import_module("pytorch_metric_learning.trainers")
    head = losses.ArcFaceLoss(
        classes, network.bn.num_features, margin=np.degrees(MARGIN), scale=SCALE
    )
    optimizers = {
        f"{name}_optimizer": torch.optim.Adam(part.parameters(), lr=config.peak_rate)
        for name, part in (("trunk", network), ("metric_loss", head))
    }
    return trainers.MetricLossOnly(
        models={"trunk": network},
        optimizers=optimizers,
        batch_size=config.batch_size,
        loss_funcs={"metric_loss": head},
        dataset=dataset,
        dataloader_num_workers=0,
    )


EMBED = {
    "wildlife-tools": use_wildlife_tools_to_embed,
    "pytorch-metric-learning": use_metric_learning_to_embed,
}
TRAIN = {
    "wildlife-tools": use_wildlife_tools_to_train,
    "pytorch-metric-learning": use_metric_learning_to_train,
}


def prepare_peers(way: str, stage: str, kind: str, size: int, preset_name: str, batch: int) -> Run:
    """What is timed: embedding or an epoch of `size` photos, or evaluating `size` embeddings."""
    if stage == "evaluation":
        return evaluation.prepare_evaluation(way, size, evaluation.DIM, "six each")
    config = settings(preset_name, batch)
    rows = labelled(size, kind, config.image_size)
    ours, _, plain = networks(preset_name)
    if stage == "epoch":
        run = TRAIN[way](rows, config, plain) if way in TRAIN else use_ours_to_train(rows, config)
    elif way in EMBED:
        run = functools.partial(EMBED[way], rows, config, plain)
    else:
        run = functools.partial(use_ours_to_embed, rows, config, ours)
    run()
    if way != "ours, first pass":
        return run

    def first_pass() -> None:
        with TemporaryDirectory() as folder:  # chips are made, then read as in any epoch
            ChipStore(folder, config.image_size).build(rows)
        run()

    return first_pass


def peer_differences(ways: list[str]) -> dict[str, float]:
    """The largest difference from ours: of embeddings, of shares, of three steps' losses.

    Embeddings are of equal chips and relative to the largest value; in "cut before" no package
    resizes, so that all have equal pixels.
    """
    theirs = [way for way in ways if way in EMBED]
    shares = evaluation.share_differences(["ours", *theirs])
    config = settings("demo", 8)
    rows = labelled(8, "cut before", config.image_size)
    ours, _, plain = networks("demo")
    own, losses = use_ours_to_embed(rows, config, ours), _losses("ours", rows)
    found = {}
    for way in theirs:
        apart = np.abs(EMBED[way](rows, config, plain) - own).max() / np.abs(own).max()
        steps = np.abs(np.subtract(_losses(way, rows), losses)).max()
        found[way] = float(max(apart, steps, shares[way]))
    return found


def _losses(way: str, rows: pd.DataFrame) -> list[float]:
    """Losses of three steps with one batch from equal weights, photos not augmented."""
    config = dataclasses.replace(settings("demo", len(rows)), peak_rate=1e-4)
    chips = chips_of(rows, config.image_size, labels=rows["individual"].to_numpy())
    pixels, labels = (torch.tensor(np.stack(part)) for part in zip(*chips, strict=True))
    ours = step.trainer(config, rows["individual"].nunique())
    if way == "ours":
        return [step.our_step(ours, pixels, labels) for _ in range(3)]
    network = Network(config.backbone)
    network.backbone.load_state_dict(ours.model.backbone.state_dict())
    network.bn.load_state_dict(ours.model.bn.state_dict())
    batch, found = list(zip(pixels.permute(0, 3, 1, 2), labels.tolist(), strict=True)), []
    given = batch, config, network, len(ours.head.margins)
    if way == "wildlife-tools":
        made = wildlife_tools_trainer(*given)
        made.objective.loss.W.data = ours.head.weight.data.T.clone()
        made.epochs = 3
        made.epoch_callback = lambda epoch_data, **_: found.append(epoch_data[MEAN_LOSS])
        made.train()
    else:
        made = metric_learning_trainer(*given)
        made.loss_funcs["metric_loss"].W.data = ours.head.weight.data.T.clone()
        made.end_of_iteration_hook = lambda own: found.append(own.losses["total_loss"].item())
        made.train(num_epochs=3)
    return [float(loss) for loss in found]


WRITTEN = {  # what a user writes
    ("ours", "embedding"): (use_ours_to_embed,),
    ("ours", "epoch"): (use_ours_to_train,),
    ("ours", "evaluation"): (evaluation.ours,),
    ("wildlife-tools", "embedding"): (use_wildlife_tools_to_embed,),
    ("wildlife-tools", "epoch"): (use_wildlife_tools_to_train, wildlife_tools_trainer, chip_first),
    ("wildlife-tools", "evaluation"): (evaluation.wildlife_tools,),
    ("pytorch-metric-learning", "embedding"): (use_metric_learning_to_embed, Photos),
    ("pytorch-metric-learning", "epoch"): (
        *(use_metric_learning_to_train, metric_learning_trainer, Photos),
    ),
    ("pytorch-metric-learning", "evaluation"): (evaluation.metric_learning,),
}


def lines() -> pd.DataFrame:
    """Lines of code that a user writes for each stage: stage, way, lines (docstrings apart)."""
    rows = [(stage, way, sum(map(_lines, parts))) for (way, stage), parts in WRITTEN.items()]
    return pd.DataFrame(rows, columns=["stage", "way", "lines"])


def _lines(written: object) -> int:
    """Lines of a function or class but for docstrings, comments and empty ones."""
    source = textwrap.dedent(inspect.getsource(written))
    words = re.sub(r'""".*?"""', "", source, flags=re.DOTALL)
    return sum(bool(line.strip()) and line.strip()[0] != "#" for line in words.split("\n"))


def _cases(photos: int, embeddings: int, preset_name: str, batch: int) -> list[dict[str, object]]:
    each = [(stage, kind) for stage in ("embedding", "epoch") for kind in KINDS]
    cases = [{"stage": stage, "kind": kind, "size": photos} for stage, kind in each]
    cases.append({"stage": "evaluation", "kind": "embeddings", "size": embeddings})
    same = {"preset_name": preset_name, "batch": batch}
    return [
        case | same | ({"ways": WAYS} if case["kind"] == KINDS[0] else {"ways": INSTALLED})
        for case in cases
    ]


KINDS = "12 megapixels", "cut before"
INSTALLED = "ours", "wildlife-tools", "pytorch-metric-learning"
WAYS = ("ours", "ours, first pass", *INSTALLED[1:])
PEERS = Task(
    "peers",
    WAYS,
    {"quick": _cases(8, 300, "demo", 4), "full": _cases(48, 5000, "compact", 16)},
    prepare_peers,
    peer_differences,
    allowed=1e-3,  # of a loss; of embeddings relative to the largest value; of a share
)
