"""A short run of `tests.fuzz`: several hundred mutated files of all kinds."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import fuzz

KINDS = ["network", "checkpoint", "idx", "npz", "book"]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    good = fuzz.seeds(folder)
    assert list(good) == KINDS
    return folder, good, fuzz.Reader(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_load_and_pickles_that_write_do_not(kind, fuzzed, monkeypatch):
    folder, good, reader = fuzzed
    monkeypatch.chdir(folder)
    for data in good[kind]:
        path, error = reader.read(kind, data)
        if fuzz._SENTINEL.encode() in data:
            assert "which arrays do not need" in str(error)
            assert fuzz.wrong(path, error, 0) is None
        else:
            assert error is None
    assert not (folder / fuzz._SENTINEL).exists()


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_load_or_are_refused(kind, fuzzed, monkeypatch):
    folder, good, reader = fuzzed
    monkeypatch.chdir(folder)
    refused = []

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**64))
    def read(seed):
        data = fuzz.mutate(random.Random(seed), kind, good)
        tracemalloc.start()
        began = time.perf_counter()
        path, error = reader.read(kind, data)
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert fuzz.wrong(path, error, seconds) is None
        assert peak < 32e6
        refused.append(error is not None)

    read()
    assert sum(refused) > len(refused) / 2
    assert not (folder / fuzz._SENTINEL).exists()
