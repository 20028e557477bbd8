"""From messages of readers to outcomes, in whatever order they come."""

import random

import numpy as np
import pytest
from fakes import N_FEATURES, VoxelEncoder

from oncofm.seeds.seed import Seed, SeedSource
from oncofm.workflow.batch.compute import compute_items
from oncofm.workflow.batch.reader import ItemEnd, ItemFailed
from oncofm.workflow.case import Case, CaseState, LesionOutcome
from oncofm.workflow.run import SampledChunk, SampledLesion


def case(name, n_seeds):
    seeds = tuple(Seed(f"{name}-{n}", (0.0, 0.0, 0.0), SeedSource("table")) for n in range(n_seeds))
    return Case(name, seeds=seeds)


def chunk(position, number, case, start, stop):
    lesions = tuple(
        SampledLesion(
            LesionOutcome(seed, CaseState.DONE),
            np.full((1, 50, 50, 50), 1000 * position + 100 * number + n, np.float32),
        )
        for n, seed in enumerate(case.seeds[start:stop], start)
    )
    return SampledChunk((position, number), case, start, lesions)


def end(position, n_cases):
    return ItemEnd(position, n_cases, (), ())


def failed(position):
    return ItemFailed(position, "reader_crashed", "It crashed.")


def compute(messages, encoder=None):
    return list(compute_items(iter(messages), lambda: encoder or VoxelEncoder()))


def first_features(outcome):
    return [
        [lesion.features[0] if lesion.features is not None else None for lesion in each.lesions]
        for each in outcome.outcomes
    ]


def test_chunks_of_several_items_are_told_apart():
    a, b = case("a", 5), case("b", 3)
    messages = [
        chunk(0, 0, a, 0, 2),
        chunk(1, 0, b, 0, 3),
        chunk(0, 0, a, 2, 5),
        end(1, 1),
        end(0, 1),
    ]
    encoder = VoxelEncoder()
    outcomes = compute(messages, encoder)
    found = {outcome.position: first_features(outcome) for outcome in outcomes}
    assert found == {0: [[0, 1, 2, 3, 4]], 1: [[1000, 1001, 1002]]}
    assert encoder.batches == [4, 4]


@pytest.mark.parametrize("seed", range(12))
def test_any_mixture_gives_every_item_once(seed):
    rng = random.Random(seed)
    streams, expected = [], {}
    for position in range(12):
        stream, kept = [], []
        n_cases = rng.randrange(4)
        fails_after = rng.choice([None, None, rng.randrange(6)])
        for number in range(n_cases):
            one = case(f"{position}/{number}", rng.randrange(7))
            step = rng.randrange(1, 4)
            starts = range(0, max(1, len(one.seeds)), step)
            stream += [chunk(position, number, one, s, s + step) for s in starts]
            kept.append([1000 * position + 100 * number + n for n in range(len(one.seeds))])
        if fails_after is None:
            stream.append(end(position, n_cases))
            expected[position] = kept
        else:
            stream[fails_after:] = [failed(position)]
            expected[position] = None
        streams.append(stream)
    messages = []
    while streams:
        stream = rng.choice(streams)
        messages.append(stream.pop(0))
        streams = [each for each in streams if each]
    outcomes = compute(messages)
    assert sorted(outcome.position for outcome in outcomes) == list(range(12))
    for outcome in outcomes:
        if expected[outcome.position] is None:
            assert outcome.failure.reason == "reader_crashed"
        else:
            assert outcome.failure is None
            assert first_features(outcome) == expected[outcome.position]


def test_an_item_that_fails_half_way_through_a_case():
    a, b = case("a", 6), case("b", 1)
    messages = [chunk(0, 0, a, 0, 2), chunk(1, 0, b, 0, 1), failed(0), end(1, 1)]
    outcomes = {outcome.position: outcome for outcome in compute(messages)}
    assert outcomes[0].failure.message == "It crashed."
    assert first_features(outcomes[1]) == [[1000]]


def test_an_item_that_fails_after_a_case_that_was_complete():
    a = case("a", 4)  # a full batch, so its outcome is out when the failure comes
    (outcome,) = compute([chunk(0, 0, a, 0, 4), failed(0)])
    assert outcome.failure.reason == "reader_crashed"


def test_an_item_without_cases_comes_out_at_once():
    def messages():
        for position in range(1000):
            yield end(position, 0)
            asked.append(position)

    asked = []
    for n_seen, _ in enumerate(compute_items(messages(), VoxelEncoder), start=1):
        assert len(asked) <= n_seen
    assert n_seen == 1000


def test_an_encoder_that_fails_fails_the_lesion_and_not_the_run():
    class Breaks(VoxelEncoder):
        def encode(self, patches):
            if (patches == 1001).any():
                raise RuntimeError
            return super().encode(patches)

    a, b = case("a", 2), case("b", 3)
    messages = [chunk(0, 0, a, 0, 2), chunk(1, 0, b, 0, 3), end(0, 1), end(1, 1)]
    outcomes = {outcome.position: outcome for outcome in compute(messages, Breaks())}
    assert first_features(outcomes[0]) == [[0, 1]]
    assert first_features(outcomes[1]) == [[1000, None, 1002]]
    (one,) = outcomes[1].outcomes
    assert (one.state, one.reason) == (CaseState.PARTIAL, "encoding_failed")


def test_patches_are_not_kept():
    """A study of many series must not keep the patches of all of them until it ends."""
    import weakref

    alive = []

    def messages():
        for number in range(20):
            one = chunk(0, number, case(str(number), 4), 0, 4)
            alive.extend(weakref.ref(lesion.patch) for lesion in one.lesions)
            yield one
            del one
            assert sum(ref() is not None for ref in alive) <= 8
        yield end(0, 20)

    (outcome,) = compute(messages())
    assert len(outcome.outcomes) == 20
    assert outcome.outcomes[0].lesions[0].features.shape == (N_FEATURES,)
