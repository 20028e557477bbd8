import numpy as np
import pytest
from fakes import VoxelEncoder, voxels_of

from oncofm.errors import SegmentEmptyError, SeriesGapError
from oncofm.imaging.geometry import Geometry
from oncofm.imaging.patch import PatchSpec, sample_patch
from oncofm.seeds.seed import RejectedSeed, Seed, SeedSource
from oncofm.workflow.case import Case, CaseState
from oncofm.workflow.describe import exit_code
from oncofm.workflow.run import run_cases

SPEC = PatchSpec()
SOURCE = SeedSource("table")


class ArrayVolume:
    """Voxels in memory; slice `broken` raises what it is told to."""

    def __init__(self, name, error=None):
        self.volume_id = name
        self.notices = ()
        self.geometry = Geometry.from_affine(np.diag([2.0, 2.0, 3.0, 1.0]), (60, 50, 40))
        rng = np.random.default_rng(abs(hash(name)) % 2**32)
        self.voxels = rng.normal(0, 300, (40, 50, 60)).astype(np.float32)
        self.error = error
        self.released = False

    def release(self):
        self.released = True

    def read_box(self, start, stop):
        if self.error is not None:
            raise self.error
        (i, j, k), (i_, j_, k_) = start, stop
        return self.voxels[k:k_, j:j_, i:i_]


def seed(lesion_id, position=(50.0, 50.0, 60.0)):
    return Seed(lesion_id, position, SOURCE)


def run(cases, encoder=None):
    encoder = encoder or VoxelEncoder()
    return list(run_cases(cases, lambda: encoder, SPEC))


def test_every_lesion_gets_the_features_of_its_own_patch_across_batches():
    cases = [
        Case(f"case-{n}", volume=ArrayVolume(f"v{n}"), seeds=tuple(
            seed(f"l{i}", (40.0 + i, 45.0, 50.0 + n)) for i in range(n)
        ))
        for n in (1, 3, 2, 5)
    ]  # fmt: skip
    encoder = VoxelEncoder()
    outcomes = run(cases, encoder)
    assert encoder.batches == [4, 4, 3]
    assert [outcome.case.case_id for outcome in outcomes] == [case.case_id for case in cases]
    for case, outcome in zip(cases, outcomes, strict=True):
        assert outcome.state is CaseState.DONE
        for given, lesion in zip(case.seeds, outcome.lesions, strict=True):
            patch = sample_patch(case.volume, given.position_mm, SPEC)
            np.testing.assert_array_equal(lesion.features, voxels_of(patch.voxels[None])[0])


def test_more_lesions_than_one_piece_of_work_come_back_in_order():
    seeds = tuple(seed(f"l{i}", (40.0 + i * 0.1, 45.0, 50.0)) for i in range(70))
    (outcome,) = run([Case("many", volume=ArrayVolume("v"), seeds=seeds)])
    assert [lesion.seed.lesion_id for lesion in outcome.lesions] == [s.lesion_id for s in seeds]
    assert outcome.state is CaseState.DONE


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SeriesGapError("Slices are missing."), CaseState.REJECTED, "gap_in_patch"),
        (RuntimeError("PATIENT^NAME"), CaseState.FAILED, "sampling_failed"),
        (MemoryError(), CaseState.FAILED, "sampling_failed"),
    ],
)
def test_a_bad_case_does_not_touch_its_neighbours(error, state, reason):
    good = Case("good", volume=ArrayVolume("g"), seeds=(seed("a"), seed("b")))
    bad = Case("bad", volume=ArrayVolume("b", error), seeds=(seed("c"),))
    alone = run([good])[0]
    first, middle, last = run([good, bad, good])
    assert (middle.state, middle.reason) == (state, reason)
    assert "PATIENT" not in middle.message
    for outcome in (first, last):
        assert outcome.state is CaseState.DONE
        for lesion, expected in zip(outcome.lesions, alone.lesions, strict=True):
            np.testing.assert_array_equal(lesion.features, expected.features)


def test_one_bad_lesion_makes_a_case_partial():
    rejected = RejectedSeed("empty", SOURCE, SegmentEmptyError("Segment 2 has no voxel."))
    outside = seed("far", (900.0, 0.0, 0.0))
    (outcome,) = run([Case("c", volume=ArrayVolume("v"), seeds=(seed("a"), rejected, outside))])
    assert outcome.state is CaseState.PARTIAL
    assert [lesion.reason for lesion in outcome.lesions] == [
        "", "segment_empty", "seed_outside_volume",
    ]  # fmt: skip
    assert outcome.message.startswith("2 of 3 lesions not done.")


def test_a_case_without_lesions_is_never_done():
    (outcome,) = run([Case("c", volume=ArrayVolume("v"))])
    assert (outcome.state, outcome.reason) == (CaseState.REJECTED, "no_seeds")


def test_a_lesion_that_breaks_the_encoder_does_not_take_its_batch_down():
    class Breaks(VoxelEncoder):
        def encode(self, patches):
            if (patches.max(axis=(1, 2, 3, 4)) > 1e6).any():
                raise RuntimeError("out of memory")
            return super().encode(patches)

    cases = [Case(f"c{i}", volume=ArrayVolume(f"v{i}"), seeds=(seed("a"),)) for i in range(6)]
    cases[2].volume.voxels[:] = 1e12
    outcomes = run(cases, Breaks())
    states = [outcome.state for outcome in outcomes]
    assert states == [CaseState.FAILED if i == 2 else CaseState.DONE for i in range(6)]
    assert outcomes[2].reason == "encoding_failed"


def test_voxels_that_are_not_finite_are_rejected_before_the_encoder():
    volume = ArrayVolume("v")
    volume.voxels[:] = np.nan
    encoder = VoxelEncoder()
    (outcome,) = run([Case("c", volume=volume, seeds=(seed("a"),))], encoder)
    assert (outcome.state, outcome.reason) == (CaseState.REJECTED, "voxels_not_finite")
    assert encoder.batches == []


def test_features_that_are_not_finite_are_a_failure():
    class Overflows(VoxelEncoder):
        def encode(self, patches):
            return super().encode(patches) * np.inf

    (outcome,) = run([Case("c", volume=ArrayVolume("v"), seeds=(seed("a"),))], Overflows())
    assert (outcome.state, outcome.reason) == (CaseState.FAILED, "features_not_finite")
    assert outcome.lesions[0].features is None


def test_exit_codes():
    done, partial, rejected = CaseState.DONE, CaseState.PARTIAL, CaseState.REJECTED
    assert exit_code([done, done]) == 0
    assert exit_code([done, rejected]) == 2
    assert exit_code([partial]) == 2
    assert exit_code([rejected, CaseState.FAILED]) == 3
    assert exit_code([]) == 3


def test_a_volume_is_released_when_its_lesions_are_sampled():
    volumes = [ArrayVolume(name) for name in "abc"]
    cases = [Case(v.volume_id, volume=v, seeds=(seed("1"), seed("2"))) for v in volumes]
    list(run_cases(cases, VoxelEncoder, PatchSpec()))
    assert all(volume.released for volume in volumes)
