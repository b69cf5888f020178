"""Combined checksums of pages against zlib's checksum of the whole run."""

import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hga_engine.kv_store.restore import joined


@given(
    size=st.integers(1, 70),
    runs=st.integers(1, 3),
    pages=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_checksums_of_pages_combine_into_that_of_the_run(
    size: int, runs: int, pages: int, seed: int
) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (runs, pages, size), np.uint8)
    checksums = np.array([[zlib.crc32(page.data) for page in run] for run in data], np.uint32)
    assert joined(checksums, size).tolist() == [zlib.crc32(run.tobytes()) for run in data]
