"""How an MR image was acquired, in the words of the classic MR Image module, from classic and enhanced headers."""

from nfops.io.dicom.writing.source_series import SourceSeries

ECHO_TIME = "EchoTime"
MR_KEPT = (
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName"),
    *("RepetitionTime", ECHO_TIME, "InversionTime", "EchoTrainLength", "EchoNumbers", "FlipAngle"),
    *("NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "MagneticFieldStrength", "PixelBandwidth"),
    *("AcquisitionDate", "AcquisitionTime"),
)
ECHO_KINDS = {"SPIN": ["SE"], "GRADIENT": ["GR"], "BOTH": ["SE", "GR"]}


def mr_sequence_kind(series: SourceSeries) -> dict[str, list[str]]:
    """Scanning Sequence and Sequence Variant from an enhanced header's Pulse Sequence module; {} for a classic one.

    PS3.3, C.8.3.1 and C.8.13.4.
    """
    echoes = ECHO_KINDS.get(str(series.agreed("EchoPulseSequence")))
    if echoes is None:
        return {}
    kinds = list(echoes)
    kinds += ["EP"] if series.agreed("EchoPlanarPulseSequence") == "YES" else []
    kinds += ["IR"] if series.agreed("InversionRecovery") == "YES" else []
    steady, spoiling = series.agreed("SteadyStatePulseSequence"), series.agreed("Spoiling")
    variants = [
        name
        for name, is_so in (
            ("SK", series.agreed("SegmentedKSpaceTraversal") in ("PARTIAL", "FULL")),
            ("SS", steady not in (None, "NONE")),
            ("SP", spoiling not in (None, "NONE")),
            ("MTC", series.agreed("MagnetizationTransfer") not in (None, "NONE")),
        )
        if is_so
    ]
    return {"ScanningSequence": kinds, "SequenceVariant": variants or ["NONE"]}
