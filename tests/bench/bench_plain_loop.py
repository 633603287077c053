"""The textbook training loop, for comparison: `python tests/bench/bench_plain_loop.py CATALOG ...`.

As the usual repositories do it: float32, NCHW, PIL decode, crop and resize in every epoch, one-hot
margins, a full similarity matrix. Same split, weights and augmentation as ours; the same loss and
schedule too, so that what differs is the code. With --a1-loss it has A.1's scale and margins, which
`compact` tunes for few photos, and a schedule that fits few epochs: neither A.1's nor the released
one. Prints top-k on the test set per species, and photos per second.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from miewid_core import splits
from miewid_core.bench.textbook import Network, OneHotArcFace, Photos
from miewid_core.chips import augmentation
from miewid_core.config import learning_rate, preset
from miewid_core.readers.load import load_catalog

A1_LOSS = {  # A.1's scale and margins; a third of its warm-up, to two thirds of its peak rate
    **{"scale": 51.5, "margin_low": 0.2, "margin_high": 0.5},
    **{"warmup_epochs": 5, "start_rate": 1.5e-5, "peak_rate": 1e-3, "decay": 0.8},
}


def margins_of(counts, config):
    """Counts (n_classes,) to margins: n ** -1/4 scaled to the range."""
    values = counts.astype(float) ** -0.25
    spread = np.ptp(values) or 1.0
    span = config.margin_high - config.margin_low
    return torch.tensor(config.margin_low + span * (values - values.min()) / spread).float()


def train(rows, config, weights, device, workers):
    """Train and return the network and its rate in photos per second, the first epoch left out."""
    labels, names = pd.factorize(rows["individual"], sort=True)
    network = Network(config.backbone, weights).to(device)
    counts = np.bincount(labels)
    margins, features = margins_of(counts, config), network.bn.num_features
    head = OneHotArcFace(features, len(names), margins, config.scale, config.sub_centers)
    head.to(device)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.start_rate)
    photos = Photos(rows, labels, config.image_size, augmentation(config.image_size))
    loader = DataLoader(
        photos, config.batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    times = []
    for epoch in range(config.epochs):
        start, total = time.monotonic(), 0.0
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, epoch)
        network.train()
        for chips, batch_labels in loader:
            optimizer.zero_grad()
            loss = head(network(chips.to(device)), batch_labels.to(device))
            loss.backward()
            optimizer.step()
            total += loss.item()
        times.append(time.monotonic() - start)
        rate = len(loader) * config.batch_size / times[-1]
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}, {rate:.0f} photos/s", flush=True)
    return network, len(loader) * config.batch_size / np.median(times[1:] or times)


@torch.inference_mode()
def report(network, rows, config, device, title):
    """Print top-1, 5, 10, 20 of each species by a full similarity matrix."""
    network.eval()
    for species, part in rows.groupby("species"):
        photos = Photos(part, np.zeros(len(part), int), config.image_size)
        parts = [network(chips.to(device)) for chips, _ in DataLoader(photos, 64)]
        embeddings = functional.normalize(torch.cat(parts)).cpu().numpy()
        similarity = embeddings @ embeddings.T
        np.fill_diagonal(similarity, -np.inf)
        order = np.argsort(-similarity, axis=1)[:, :-1]
        names = part["individual"].to_numpy()
        right = names[order] == names[:, None]
        right = right[right.any(axis=1)]
        shares = [f"top-{k} {100 * right[:, :k].any(1).mean():.1f}" for k in (1, 5, 10, 20)]
        print(f"{title} | {species}: {', '.join(shares)} ({len(right)} queries)", flush=True)


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("catalog")
    parser.add_argument("--sides-differ", nargs="*", default=None)
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--pretrained")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="train on this species alone")
    parser.add_argument("--a1-loss", action="store_true", help="A.1's scale and margins")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    changes = A1_LOSS if given.a1_loss else {}
    config = preset(given.preset, image_size=given.image_size, epochs=given.epochs, **changes)
    photos = load_catalog(given.catalog, sides_differ=given.sides_differ)
    split = splits.split(photos, given.seed)
    rows, tested = (splits.rows(photos, split, part) for part in ("train", "test"))
    if given.only:
        rows, tested = (part[part["species"] == given.only] for part in (rows, tested))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(given.seed)
    report(
        Network(config.backbone, given.pretrained).to(device), tested, config, device, "untrained"
    )
    network, rate = train(rows, config, given.pretrained, device, given.workers)
    report(network, tested, config, device, given.only or "all species")
    print(f"{rate:.0f} photos/s in training")


if __name__ == "__main__":
    main()
