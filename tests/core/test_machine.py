"""Freed memory that is given back when chips are made."""

import platform
import subprocess
import sys

import pytest

# a process of its own: what is set holds until its end
CODE = """
import os, resource, sys
import numpy as np
from PIL import Image
import pandas as pd
from miewid_core.chips import ChipStore

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6

folder = sys.argv[1]
noise = np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)
paths = [f"{folder}/{number}.jpg" for number in range(8)]
for path in paths:
    Image.fromarray(noise).resize((3000, 2250)).save(path)
rows = pd.DataFrame({"path": paths, "x": 0.0, "y": 0.0, "w": 3000.0, "h": 2250.0, "theta": 0.0})
store, before = ChipStore(f"{folder}/chips", 1024), held()  # decoded whole: 47 MB each
os.cpu_count = lambda: 1  # one photo at once
store.build(rows)
print(held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_memory_of_photos_goes_back_to_the_system(tmp_path):
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert float(told) < 30  # MB
