"""UIDs of the items of a sequence against pydicom, in everything a sequence can be written as."""

from io import BytesIO

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID as Uid
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from oncofm.imaging import items
from oncofm.imaging.items import uids_of_items

SEQUENCE, UID = Tag("ReferencedInstanceSequence"), Tag("ReferencedSOPInstanceUID")


def read(references: list[Dataset], syntax: Uid, undefined: tuple[bool, bool]) -> Dataset:
    """Write a data set with these items and read it again, undecoded."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.ReferencedInstanceSequence = references
    dataset["ReferencedInstanceSequence"].is_undefined_length = undefined[0]
    for item in references:
        item.is_undefined_length_sequence_item = undefined[1]
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=False)
    file.seek(0)
    return pydicom.dcmread(file, force=True)


def reference(uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.ReferencedSOPInstanceUID = uid
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "9.9.9"
    item.PurposeOfReferenceCodeSequence = [inner]
    return item


@pytest.mark.parametrize("undefined", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_every_encoding(syntax, undefined):
    uids = ["1.2.3", "1.2.34", "2.25.1"]
    dataset = read([reference(uid) for uid in uids], syntax, undefined)
    assert uids_of_items(dataset, SEQUENCE, UID) == uids


def test_no_data_set_is_made_of_an_item(monkeypatch):
    dataset = read([reference("1.2.3")], ExplicitVRLittleEndian, (False, False))
    monkeypatch.setattr(type(dataset), "__getitem__", lambda *_: pytest.fail("pydicom read it"))
    assert uids_of_items(dataset, SEQUENCE, UID) == ["1.2.3"]


def test_absent_or_empty():
    assert uids_of_items(Dataset(), SEQUENCE, UID) == []
    assert uids_of_items(read([], ExplicitVRLittleEndian, (False, False)), SEQUENCE, UID) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_plain_uid_is_left_to_pydicom():
    dataset = read([reference("1.2.3")], ExplicitVRLittleEndian, (False, False))
    raw = dataset.get_item(SEQUENCE)
    assert isinstance(raw, RawDataElement)
    dataset[SEQUENCE] = raw._replace(value=raw.value.replace(b"1.2.3\0", b"1.2.x "))
    assert uids_of_items(dataset, SEQUENCE, UID) == ["1.2.x"]


def test_an_item_without_the_element_is_an_error():
    with pytest.raises(KeyError):
        uids_of_items(read([Dataset()], ExplicitVRLittleEndian, (False, False)), SEQUENCE, UID)


@pytest.mark.parametrize("undefined", [False, True])
def test_garbled_items_end_as_pydicom_ends_them(undefined):
    dataset = read([reference("1.2.3")] * 2, ExplicitVRLittleEndian, (False, undefined))
    raw = dataset.get_item(SEQUENCE)
    assert isinstance(raw, RawDataElement)
    for end in range(len(raw.value)):
        dataset[SEQUENCE] = raw._replace(value=raw.value[:end])
        fallen_back = []
        try:
            found = items.items_of(raw.value[:end], UID, "<", True)
        except items.HeaderError:
            fallen_back.append(end)
        else:
            assert set(found) <= {b"1.2.3\0", None}
        assert fallen_back or end in (0, len(raw.value) // 2)
