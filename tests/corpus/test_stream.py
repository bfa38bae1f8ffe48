"""The stream is a permutation of the text's sequences that only the data seed decides."""

import numpy as np
import pytest

from proxytrain.corpus import Stream
from proxytrain.corpus.keyed import permutation
from proxytrain.corpus.tokens import Shards
from proxytrain.errors import RequestError


@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 100, 4097, 65_536])
def test_the_permutation_is_a_bijection(n):
    assert (np.sort(permutation(np.arange(n), n, 7, 1)) == np.arange(n)).all()


def test_the_permutation_needs_no_memory_for_a_trillion_positions():
    n = 10**12 + 7
    images = permutation(np.array([0, 1, n - 1]), n, 0, 0)
    assert len(set(images.tolist())) == 3
    assert ((images >= 0) & (images < n)).all()


def test_the_permutation_never_changes():
    # Written down once: a stream must be the same on every machine and in every version.
    assert permutation(np.arange(8), 1000, 0, 0).tolist() == [689, 177, 600, 705, 670, 482, 971, 169]


def test_the_permutation_looks_random():
    n = 10_000
    images = permutation(np.arange(n), n, 3, 0)
    neighbours = np.corrcoef(images[:-1], images[1:])[0, 1]
    assert abs(neighbours) < 4 / np.sqrt(n)
    halves = np.add.reduceat(images < n / 2, np.arange(0, n, 100))  # binomial(100, .5), a little narrower
    assert 4 < halves.std() < 6


def test_seeds_and_epochs_have_their_own_orders():
    orders = {tuple(permutation(np.arange(50), 50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_an_epoch_reads_every_sequence_once():
    stream = Stream(np.arange(1000, dtype=np.uint16), context=10, data_seed=0)
    assert stream.sequences == 99
    inputs, targets = stream.read(0, 990)
    assert inputs.dtype == targets.dtype == np.int64
    assert sorted(inputs[:, 0]) == list(range(0, 990, 10))
    assert (targets == inputs + 1).all()
    again, _ = stream.read(990, 990)
    assert sorted(again[:, 0]) == list(range(0, 990, 10))
    assert (again != inputs).any()


def test_batch_sizes_read_the_same_text_in_the_same_order():
    tokens = np.random.default_rng(0).integers(0, 1000, 5000, dtype=np.uint16)
    whole, whole_targets = Stream(tokens, context=8, data_seed=1).read(0, 12_000)
    for batch in (8, 40, 800):
        stream = Stream(tokens, context=8, data_seed=1)
        parts = [stream.read(start, batch) for start in range(0, 12_000, batch)]
        assert (np.concatenate([inputs for inputs, _ in parts]) == whole).all()
        assert (np.concatenate([targets for _, targets in parts]) == whole_targets).all()


def test_any_position_can_be_read_first():
    tokens = np.random.default_rng(0).integers(0, 1000, 5000, dtype=np.uint16)
    stream = Stream(tokens, context=8, data_seed=1)
    late, _ = stream.read(4800, 80)
    assert (late == Stream(tokens, context=8, data_seed=1).read(0, 4880)[0][-10:]).all()
    assert (stream.read(0, 80)[0] == Stream(tokens, context=8, data_seed=1).read(0, 80)[0]).all()


def test_several_files_are_read_as_one():
    tokens = np.random.default_rng(0).integers(0, 1000, 500, dtype=np.uint16)
    shards = Shards([tokens[:101], tokens[101:103], tokens[103:350], tokens[350:]])
    for one, other in zip(Stream(shards, 7, 0).read(0, 700), Stream(tokens, 7, 0).read(0, 700)):
        assert (one == other).all()
    assert (shards[95:360] == tokens[95:360]).all()


def test_epochs_count_how_often_the_text_is_read():
    stream = Stream(np.zeros(1001, dtype=np.uint16), context=10, data_seed=0)
    assert stream.epochs(500) == 0.5
    assert stream.epochs(2500) == 2.5


def test_a_text_shorter_than_a_sequence_is_refused():
    with pytest.raises(RequestError, match="context=64"):
        Stream(np.zeros(64, dtype=np.uint16), context=64, data_seed=0)
