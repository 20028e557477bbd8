"""What other libraries may say: nothing that quotes a header."""

import logging
import warnings


def silence_pydicom() -> None:
    """Keep pydicom's warnings back: they quote the values they are about, perhaps a patient's."""
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
