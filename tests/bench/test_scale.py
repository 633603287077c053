"""The paper's size: what comes before a training, and the evaluation, within their memory.

Times are for `bench_scale.py`, by hand: they depend on what else the machine does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def measured(call):
    """The two numbers that a call of bench_scale returns in a process of its own."""
    code = f"""
import json, tempfile
from pathlib import Path
import bench_scale
with tempfile.TemporaryDirectory() as folder:
    print(json.dumps(bench_scale.{call}))
"""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": paths, "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_catalog_of_the_papers_size_takes_less_than_two_gigabytes():
    assert measured("before_training(Path(folder))")[1] < 2


@pytest.mark.slow
def test_embeddings_are_read_from_disk_as_they_are_needed():
    extra, size = measured("evaluation(Path(folder))")
    assert 0 < extra < size / 2
