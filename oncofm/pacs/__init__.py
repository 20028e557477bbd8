"""A DICOM node around the workflow: studies in, structured reports back, unattended."""
