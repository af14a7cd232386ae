"""Which of the values that old files hold may be handed on."""

import warnings
from typing import Any

TEXTS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI")
SEXES = (None, "", "M", "F", "O")


def is_valid(keyword: str, value: Any) -> bool:
    """Whether a value is one that its attribute may have: an age of "0Y", a date of "***", a sex of "0" is not."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VR
    from pydicom.multival import MultiValue
    from pydicom.valuerep import validate_value

    if keyword == "PatientSex":
        return value in SEXES
    vr = dictionary_VR(keyword)
    values = value if isinstance(value, MultiValue | list) else [value]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the value, which may be the patient's (B45)
            for one in values if vr in TEXTS else ():
                validate_value(vr, one if one is None else str(one), RAISE)
    except ValueError:
        return False
    return True
