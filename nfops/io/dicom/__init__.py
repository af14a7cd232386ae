"""DICOM: files of slices, mosaics and multi-frame images <-> volumes in world coordinates."""
