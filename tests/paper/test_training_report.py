"""The map of embeddings: who lies beside whom, and the same whatever the threads."""

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from miewid_core.paper.training_report import projection


@pytest.fixture
def embedded():
    """Fifty animals of 20 photos each; embeddings (1000, 192) float32 as networks give, photos."""
    rng = np.random.default_rng(0)
    people = np.arange(1000) % 50
    embeddings = rng.normal(size=(50, 192))[people] + rng.normal(0, 0.5, (1000, 192))
    photos = pd.DataFrame({"species": "ant", "individual": people.astype(str)}, range(7, 1007))
    return embeddings.astype(np.float32), photos


def test_photos_of_an_animal_lie_together_and_threads_move_none(embedded):
    """scikit-learn's sums of float32 differ by the threads that it may use."""
    with threadpool_limits(1):
        placed = projection(*embedded, seed=0)
    with threadpool_limits(2):
        again = projection(*embedded, seed=0)
    pd.testing.assert_frame_equal(placed, again, check_exact=True)
    assert placed.columns.tolist() == ["x", "y", "species", "individual"]
    assert placed["individual"].tolist() == embedded[1]["individual"].tolist()
    points = placed[["x", "y"]].to_numpy()
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = placed["individual"].to_numpy()[apart.argmin(axis=1)]
    assert (nearest == placed["individual"]).mean() > 0.99
