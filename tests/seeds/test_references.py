"""Which volume a segmentation is assigned to, and when it is refused."""

import pytest

from oncofm.errors import (
    FrameOfReferenceError,
    NotCTError,
    SegmentationUnreferencedError,
    SeriesAbsentError,
    SeriesAmbiguousError,
)
from oncofm.seeds.references import Reference, VolumeRecord, choose_volume

CHEST = VolumeRecord("1.1", "1.1", "frame-a", frozenset({"a1", "a2"}))
ARTERIAL = VolumeRecord("1.2", "1.2", "frame-b", frozenset({"b1", "b2"}))
VENOUS = VolumeRecord("1.2#2", "1.2", "frame-b", frozenset({"b3", "b4"}))
VOLUMES = [CHEST, ARTERIAL, VENOUS]


def reference(frame="frame-b", series=(), images=(), drawn_on=()) -> Reference:
    return Reference("SEG 9.9", frame, frozenset(series), frozenset(images), frozenset(drawn_on))


def codes(chosen):
    return [notice.code for notice in chosen.notices]


def test_the_referenced_series_decides():
    chosen = choose_volume(reference("frame-a", ["1.1"]), VOLUMES)
    assert chosen.volume is CHEST
    assert chosen.notices == ()


def test_further_references_do_not_matter():
    """A PET/CT segmentation may name both series."""
    chosen = choose_volume(reference("frame-a", ["7.7", "1.1"]), VOLUMES)
    assert chosen.volume is CHEST


@pytest.mark.parametrize(
    ("images", "drawn_on"),
    [(["b3", "b4"], []), ([], ["b3"]), (["b1", "b2", "b3", "b4"], ["b4"])],
)
def test_in_a_split_series_the_source_images_decide(images, drawn_on):
    chosen = choose_volume(reference("frame-b", ["1.2"], images, drawn_on), VOLUMES)
    assert chosen.volume is VENOUS
    assert chosen.notices == ()


def test_source_images_alone_are_enough():
    chosen = choose_volume(reference("frame-b", images=["b1", "b2"]), VOLUMES)
    assert chosen.volume is ARTERIAL
    assert chosen.notices == ()


@pytest.mark.parametrize(
    "images", [["b1", "b2", "b3", "b4"], [], ["elsewhere"]], ids=["both", "none", "others"]
)
def test_a_split_series_without_a_decision_is_ambiguous(images):
    with pytest.raises(SeriesAmbiguousError, match=r"1\.2, 1\.2#2"):
        choose_volume(reference("frame-b", ["1.2"], images), VOLUMES)


def test_drawn_on_both_halves_is_ambiguous():
    with pytest.raises(SeriesAmbiguousError, match=r"SEG 9\.9 fits the volumes"):
        choose_volume(reference("frame-b", ["1.2"], ["b3"], ["b1", "b3"]), VOLUMES)


def test_without_references_the_frame_of_reference_decides_and_says_so():
    chosen = choose_volume(reference("frame-a"), VOLUMES)
    assert chosen.volume is CHEST
    assert codes(chosen) == ["reference_inferred"]
    assert "SEG 9.9" in chosen.notices[0].message


@pytest.mark.parametrize("frame", ["frame-b", "frame-z", ""])
def test_without_references_and_a_single_fitting_volume_it_is_refused(frame):
    with pytest.raises(SegmentationUnreferencedError, match=r"SEG 9\.9"):
        choose_volume(reference(frame), VOLUMES)


@pytest.mark.parametrize(
    "wanted", [reference("frame-a", ["5.5"]), reference("frame-a", images=["z9"])]
)
def test_an_absent_series_is_named(wanted):
    with pytest.raises(SeriesAbsentError, match=r"SEG 9\.9"):
        choose_volume(wanted, VOLUMES)
    with pytest.raises(SeriesAbsentError):
        choose_volume(wanted, [])


def test_a_series_that_cannot_be_used_says_why():
    unusable = {"7.7": NotCTError("Series 7.7 is PT; only CT can be used.")}
    with pytest.raises(NotCTError, match=r"SEG 9\.9 .* is PT"):
        choose_volume(reference("frame-a", ["7.7"]), VOLUMES, unusable)
    chosen = choose_volume(reference("frame-a", ["7.7", "1.1"]), VOLUMES, unusable)
    assert chosen.volume is CHEST


def test_another_frame_of_reference_is_refused():
    with pytest.raises(FrameOfReferenceError, match="frame-z"):
        choose_volume(reference("frame-z", ["1.1"]), VOLUMES)


def test_an_absent_frame_of_reference_is_said_to_be():
    chosen = choose_volume(reference("", ["1.1"]), VOLUMES)
    assert chosen.volume is CHEST
    assert codes(chosen) == ["frame_of_reference_unchecked"]
