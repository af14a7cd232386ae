"""DICOM: series read as images, images written as derived series and segmentations."""
