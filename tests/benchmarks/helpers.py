"""What the tests of the benchmark tool share."""

import dataclasses

import numpy as np

from benchmarks import case as cases
from benchmarks.case import Case, data
from benchmarks.peers.with_reference import Reference


def expected(case: Case) -> np.ndarray:
    """The result of the definitions, in float64."""
    wide = dataclasses.replace(case, dtype="float64")
    arrays = data(case)
    converted = cases.Data(
        **{
            f.name: getattr(arrays, f.name).astype(np.float64)
            for f in dataclasses.fields(arrays)
        }
    )
    judge = Reference()
    return judge.output(judge.prepare(wide, converted)())


def prepare(case: Case, limit: float = 60.0) -> dict:
    return {"do": "prepare", "case": case.as_json(), "limit": limit}
