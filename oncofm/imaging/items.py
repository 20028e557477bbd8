"""One element of every item of a DICOM sequence, fast.

A segmentation lists every image of its series, and a data set for each would take longer than all
else that is read of it.
"""

import re

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from oncofm.imaging.header import HeaderError, items_of, text_of

_PLAIN_UID = re.compile(rb"[0-9.]+[\0 ]*")


def uids_of_items(dataset: Dataset, sequence: BaseTag, element: BaseTag) -> list[str]:
    """Read a UID out of every item of a sequence.

    Parameters
    ----------
    dataset : pydicom.dataset.Dataset
        What holds the sequence.
    sequence, element : pydicom.tag.BaseTag
        The sequence, and the element with one UID in each of its items.

    Returns
    -------
    list of str
        In the order of the items; none without the sequence.

    Raises
    ------
    Exception
        Whatever pydicom raises where the sequence is garbled or an item lacks the element.
    """
    if sequence not in dataset:
        return []
    raw = dataset.get_item(sequence)
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and raw.VR in (None, "SQ"):
        order = "<" if raw.is_little_endian else ">"
        try:
            found = items_of(raw.value, element, order, not raw.is_implicit_VR)
        except HeaderError:
            found = [None]
        uids = [text_of(value) for value in found if value and _PLAIN_UID.fullmatch(value)]
        if len(uids) == len(found):
            return uids
    # What is laid out otherwise is for pydicom to read, or to complain about.
    return [str(item[element].value) for item in dataset[sequence].value]
