"""The paper's size: what comes before a training, and the evaluation, within their memory.

Times are for `make bench`: they depend on what else the machine does.
"""

import subprocess
import sys

import pandas as pd
import pytest

from miewid_core.bench import growth
from miewid_core.paper import plan

BEFORE = """
import re, sys
from pathlib import Path
from miewid_core import splits
from miewid_core.bench import growth
from miewid_core.paper import plan
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill
annotations = load_catalog(growth.write_catalog(Path(sys.argv[1]), 225_000))
assert abs(len(annotations) - 225_000) < 100
study = growth.study_of(annotations, splits.split(annotations))
largest = study.train["species"].value_counts().index[0]
few = [len(splits.few_shot(study.train, largest, n, 0)) for n in (25, 200)]
assert few[0] < few[1] < len(study.train)
print(bill.in_words(bill.summary(plan.asked(study, "paper"), study.config, 300)))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e6)
"""
RANKING = """
import sys, threading
from pathlib import Path
import numpy as np
import pandas as pd
import psutil
from miewid_core.bench import evaluation, growth
from miewid_core.evaluation import one_vs_all
test = pd.read_csv(sys.argv[1], dtype=str, keep_default_na=False)
embeddings = growth.random_embeddings(Path(sys.argv[1]).with_suffix(".npy"), len(test))
one_vs_all(np.eye(9, evaluation.DIM), *test[:9][growth.LABELS].T.to_numpy())
own = lambda: (lambda now: now.rss - now.shared)(psutil.Process().memory_info())
before, over, peaks = own(), threading.Event(), []
def look():
    while not over.wait(0.005):
        peaks.append(own())
looking = threading.Thread(target=look)
looking.start()
one_vs_all(embeddings, *test[growth.LABELS].T.to_numpy())
over.set()
looking.join()
print((max(peaks) - before) / embeddings.nbytes)
"""


def printed(code, argument):
    """The last number that a program prints, in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", code, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@pytest.mark.slow
def test_a_catalog_of_the_papers_size_takes_less_than_two_gigabytes(tmp_path):
    assert printed(BEFORE, tmp_path) < 2


@pytest.mark.slow
def test_embeddings_are_read_from_disk_as_they_are_needed(tmp_path):
    """Besides the file's pages less than half of what the file holds is needed."""
    plan.paper_study().test.to_csv(tmp_path / "test.csv", index=False)
    assert 0 < printed(RANKING, tmp_path / "test.csv") < 1 / 2


def test_the_synthetic_catalog_is_table_1(tmp_path):
    counts = growth.species_counts()
    assert counts["annotations"].sum() == growth.WHOLE
    assert counts.set_index("species").loc["humpback_whale", "annotations"] > growth.LARGEST
    small = pd.read_csv(growth.write_catalog(tmp_path, 3000))
    assert small["species"].nunique() == len(counts) == 49
    assert abs(len(small) - 3000) < 300
    assert small.groupby("name")["species"].nunique().eq(1).all()
