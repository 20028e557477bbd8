"""Voxels in the world."""

from oncofm.imports import import_without

# For the download of its test data pydicom would load a library for the web, which takes longer
# to import than pydicom itself.
import_without("requests", "pydicom")
