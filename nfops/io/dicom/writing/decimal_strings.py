"""Numbers as DICOM decimal strings (DS), which hold at most 16 characters."""

from collections.abc import Iterable


def decimal_string(value: float) -> str:
    """The nearest decimal string of at most 16 characters (PS3.5, 6.2, DS); never "-0.0"."""
    from pydicom.valuerep import format_number_as_ds

    text = str(format_number_as_ds(float(value) + 0.0))
    return text.removesuffix(".0")


def decimal_strings(values: Iterable[float]) -> list[str]:
    """Several of them, for a multi-valued attribute."""
    return [decimal_string(value) for value in values]
