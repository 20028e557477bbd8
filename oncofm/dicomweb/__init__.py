"""Images from a DICOMweb server (PS3.18): found by QIDO-RS, fetched by WADO-RS."""
