"""A second opinion on plans: every figure worked out again in plain numbers, without the solver and its model."""

from tokopt.checking.inputs import CheckInputs
from tokopt.checking.plan import check_plan

__all__ = ["CheckInputs", "check_plan"]
