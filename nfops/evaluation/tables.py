"""`cases.csv`: one row a case, resolution and sampling; ceilings and baselines on the row of full resolution.

Other operators are on every row on which they were measured.
"""

import csv
import io
import math

from nfops.evaluation.cases import Case
from nfops.evaluation.degrade import FULL
from nfops.evaluation.operators import PREFIX


def cases_csv(cases: list[Case]) -> str:
    """The whole file. A number that does not exist is an empty cell."""
    metrics = list(dict.fromkeys(name for case in cases for found in case.results.values() for name in found))
    beside = list(
        dict.fromkeys(f"{kind}_{name}" for case in cases for kind, row in case.beside.items() for name in row)
    )
    head = ["id", "patient", "split", "fold", "resolution", "sampling", "source_shape", *metrics, *beside]
    times = ["encode_s", "operate_s", "decode_s"]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*head, *times], lineterminator="\n")
    writer.writeheader()
    for case in cases:
        writer.writerows(_rows(case))
    return text.getvalue()


def _rows(case: Case) -> list[dict[str, str]]:
    own = {"id": case.scan_id, "patient": case.patient, "split": case.split, "fold": str(case.fold or "")}
    rows = []
    for view, found in case.results.items():
        row = own | {"resolution": f"{view.resolution:g}", "sampling": view.sampling}
        row["source_shape"] = "x".join(map(str, case.shapes[view]))
        row |= {name: _cell(value) for name, value in found.items()}
        if view.sampling == FULL:
            row |= {f"{kind}_{name}": _cell(v) for kind, other in case.beside.items() for name, v in other.items()}
            seconds = case.seconds
            row |= {f"{name}_s": _cell(getattr(seconds, name)) for name in ("encode", "operate", "decode")}
        for operator, by_view in case.rivals.items():
            row |= {f"{PREFIX}{operator}_{name}": _cell(v) for name, v in by_view.get(view, {}).items()}
        rows.append(row)
    return rows


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
