"""Plans: which algorithm computes a problem, and why.

::

    choice.py        Plan, select: the choice, cached
    explanation.py   explain: the choice in words
    measurement.py   measure: how long each algorithm takes here
    operation.py     operation: the kernel, where there is no choice

>>> from convcore.problem import ConvProblem
>>> problem = ConvProblem.parse("n1g1ic3ih224oc64kh7sh2ph3")
>>> select(problem, "fprop", "float32").algorithm
'direct'
"""

from convcore.plan.choice import (
    Plan,
    Problem,
    Question,
    check_algorithm,
    direct_cards,
    direct_of,
    fast,
    forget,
    is_possible,
    key_of,
    questions,
    seconds,
    select,
)
from convcore.plan.explanation import explain
from convcore.plan.measurement import measure
from convcore.plan.operation import operation

__all__ = [
    "Plan",
    "Problem",
    "Question",
    "check_algorithm",
    "direct_cards",
    "direct_of",
    "fast",
    "explain",
    "forget",
    "is_possible",
    "key_of",
    "measure",
    "operation",
    "questions",
    "seconds",
    "select",
]
