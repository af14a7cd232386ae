"""What nfops writes as DICOM: derived series and segmentations, with references to the files that they come from."""
