"""The solvers: HiGHS on arrays, with a feasible start; SCIP through MathOpt where HiGHS fails.

CP-SAT is never used: the program has continuous variables, and CP-SAT's adapter answers OPTIMAL with a wrong optimum.
Both solvers run on one thread, so that the same input gives the same output.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokopt.errors import InputError
from tokopt.fleet.problem import Stop
from tokopt.fleet.program import Floats, Ints, Program

SUB_PROGRAMS = ("mip_heuristic_run_rins", "mip_heuristic_run_rens", "mip_heuristic_run_root_reduced_cost")
INTERIOR_POINT_FROM = 60_000  # variables of a linear program; below that the simplex method is as fast


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of a solver found; `values` is empty where that is nothing."""

    stop: Stop
    objective: float
    bound: float
    values: Floats
    solver: str
    duals: Floats  # of rows, of linear programs
    reduced: Floats  # reduced costs, of linear programs
    detail: str = ""

    @property
    def found(self) -> bool:
        """Whether there are values."""
        return len(self.values) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How hard to look: until when, to which relative gap, and the objective that is good enough."""

    deadline: float  # time.monotonic()
    gap: float = 1e-6
    absolute_gap: float = 1e-9
    target: float = -math.inf
    relaxed: bool = False
    bound_first: bool = False  # no programs within the program to look for fleets: quicker where only the bound matters
    nodes: int = 0  # at most so many nodes of the search, 0 = any

    @property
    def seconds(self) -> float:
        """Return the time that is left."""
        return max(self.deadline - time.monotonic(), 0.05)


@dataclass(frozen=True, slots=True)
class Start:
    """A fleet to start from: values of some variables, the solver completes the others."""

    variables: Ints
    values: Floats


Solver = Callable[[Program, Floats, Effort, Start | None], Answer]
NO_VALUES = np.empty(0)


def minimise(program: Program, objective: Floats, effort: Effort, start: Start | None = None) -> Answer:
    """Return the least value of an objective, found and proven.

    Raises:
        InputError: No solver found anything within the time limit.
    """
    failures = []
    for name, solver in SOLVERS:
        answer = solver(program, objective, effort, start)
        if answer.found or answer.stop is Stop.INFEASIBLE:
            return answer
        failures.append(f"{name}: {answer.detail}")
        if time.monotonic() >= effort.deadline:  # another one has no time to load the program, let alone to solve it
            break
    said = "; ".join(failures)
    if time.monotonic() >= effort.deadline:
        raise InputError(f"no fleet found within the time limit; allow more ({said})")
    raise InputError(f"no fleet found, and no proof that there is none; is every figure of a likely size? ({said})")


def with_highs(program: Program, objective: Floats, effort: Effort, start: Start | None) -> Answer:
    """Solve with HiGHS."""
    import highspy

    whole = bool(program.integer.any()) and not effort.relaxed
    solver = _loaded(program, objective, whole=whole)
    options: dict[str, object] = {
        "time_limit": effort.seconds,
        "mip_rel_gap": effort.gap,
        "mip_abs_gap": effort.absolute_gap,
    }
    if whole:
        options |= dict.fromkeys(SUB_PROGRAMS, False) if effort.bound_first else {}
        options |= {"objective_target": effort.target} if math.isfinite(effort.target) else {}
        options |= {"mip_max_nodes": effort.nodes} if effort.nodes else {}
    elif program.variables >= INTERIOR_POINT_FROM:
        options["solver"] = "ipm"
    for name, value in options.items():
        solver.setOptionValue(name, value)
    if whole and start is not None:
        solver.setSolution(len(start.variables), start.variables.astype(np.int32), start.values.astype(np.float64))
    solver.run()
    status = solver.getModelStatus()
    states = highspy.HighsModelStatus
    if status in (states.kInfeasible, states.kUnboundedOrInfeasible):
        return Answer(Stop.INFEASIBLE, math.inf, math.inf, NO_VALUES, "HiGHS", NO_VALUES, NO_VALUES, "infeasible")
    info = solver.getInfo()
    detail = solver.modelStatusToString(status)
    solution = solver.getSolution()
    if not (info.primal_solution_status == 2 and len(solution.col_value) == program.variables):
        return Answer(Stop.TIME_LIMIT, math.inf, -math.inf, NO_VALUES, "HiGHS", NO_VALUES, NO_VALUES, detail)
    done = status == states.kOptimal
    reached = status in (states.kObjectiveTarget, states.kObjectiveBound)
    bound = info.mip_dual_bound if whole else (info.objective_function_value if done else -math.inf)
    return Answer(
        Stop.OPTIMAL if done or reached else Stop.TIME_LIMIT,
        float(info.objective_function_value),
        float(bound),
        np.array(solution.col_value),
        "HiGHS",
        np.array(solution.row_dual) if not whole else NO_VALUES,
        np.array(solution.col_dual) if not whole else NO_VALUES,
        detail,
    )


def _loaded(program: Program, objective: Floats, *, whole: bool) -> Any:
    """Return HiGHS with a program loaded: silent, on one thread."""
    import highspy

    # The class itself enables callbacks when it is made, which prints a banner before it can be silenced.
    solver = highspy.Highs.__base__()
    for name, value in (("output_flag", False), ("log_to_console", False), ("parallel", "off"), ("random_seed", 0)):
        solver.setOptionValue(name, value)
    matrix = program.matrix()
    solver.passModel(
        program.variables,
        program.rows,
        matrix.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        objective,
        program.lower,
        program.upper,
        program.row_lower,
        program.row_upper,
        matrix.indptr.astype(np.int32),
        matrix.indices.astype(np.int32),
        matrix.data,
        (program.integer & whole).astype(np.int32),
    )
    return solver


def with_scip(program: Program, objective: Floats, effort: Effort, start: Start | None) -> Answer:
    """Solve with SCIP, or a linear relaxation with GLOP."""
    from ortools.math_opt import model_pb2
    from ortools.math_opt.python import mathopt

    matrix = program.matrix()
    matrix.sum_duplicates()
    whole = not effort.relaxed
    proto = model_pb2.ModelProto()
    proto.variables.ids.extend(range(program.variables))
    proto.variables.lower_bounds.extend(program.lower.tolist())
    proto.variables.upper_bounds.extend(program.upper.tolist())
    proto.variables.integers.extend((program.integer & whole).tolist())
    (used,) = np.nonzero(objective)
    proto.objective.linear_coefficients.ids.extend(used.tolist())
    proto.objective.linear_coefficients.values.extend(objective[used].tolist())
    proto.linear_constraints.ids.extend(range(program.rows))
    proto.linear_constraints.lower_bounds.extend(program.row_lower.tolist())
    proto.linear_constraints.upper_bounds.extend(program.row_upper.tolist())
    entries = proto.linear_constraint_matrix
    entries.row_ids.extend(np.repeat(np.arange(program.rows), np.diff(matrix.indptr)).tolist())
    entries.column_ids.extend(matrix.indices.tolist())
    entries.coefficients.extend(matrix.data.tolist())
    model = mathopt.Model.from_model_proto(proto)
    parameters = mathopt.SolveParameters(
        time_limit=datetime.timedelta(seconds=effort.seconds),
        relative_gap_tolerance=effort.gap,
        absolute_gap_tolerance=effort.absolute_gap,
        enable_output=False,
    )
    kind = mathopt.SolverType.GSCIP if whole else mathopt.SolverType.GLOP
    if not whole:
        parameters.relative_gap_tolerance = parameters.absolute_gap_tolerance = None
    hints = mathopt.ModelSolveParameters()
    if whole and start is not None:
        hints.solution_hints.append(
            mathopt.SolutionHint(
                variable_values={
                    model.get_variable(v): value
                    for v, value in zip(start.variables.tolist(), start.values.tolist(), strict=True)
                }
            )
        )
    try:
        result = mathopt.solve(model, kind, params=parameters, model_params=hints)
    except Exception:  # noqa: BLE001 - the binding raises types of its own, even AttributeError
        return Answer(Stop.TIME_LIMIT, math.inf, -math.inf, NO_VALUES, "SCIP", NO_VALUES, NO_VALUES, "Refused")
    reason = result.termination.reason
    if reason in (mathopt.TerminationReason.INFEASIBLE, mathopt.TerminationReason.INFEASIBLE_OR_UNBOUNDED):
        return Answer(Stop.INFEASIBLE, math.inf, math.inf, NO_VALUES, "SCIP", NO_VALUES, NO_VALUES, "infeasible")
    detail = result.termination.detail or reason.name
    if not result.has_primal_feasible_solution():
        return Answer(Stop.TIME_LIMIT, math.inf, -math.inf, NO_VALUES, "SCIP", NO_VALUES, NO_VALUES, detail)
    values = result.variable_values()
    rows = [] if whole else result.dual_values(list(model.linear_constraints()))
    return Answer(
        Stop.OPTIMAL if reason is mathopt.TerminationReason.OPTIMAL else Stop.TIME_LIMIT,
        result.objective_value(),
        result.termination.objective_bounds.dual_bound,
        np.array([values[v] for v in model.variables()]),
        "SCIP",
        np.array(rows),
        np.array([] if whole else result.reduced_costs(list(model.variables()))),
        detail,
    )


SOLVERS: tuple[tuple[str, Solver], ...] = (("HiGHS", with_highs), ("SCIP", with_scip))


class LinearProgram:
    """A linear relaxation that is solved again after a bound has changed, from where it stood."""

    def __init__(self, program: Program, objective: Floats) -> None:
        """Load the relaxation."""
        self._solver = _loaded(program, objective, whole=False)
        self._lower = program.lower.copy()
        self._upper = program.upper

    def lower(self, variable: int, value: float) -> float:
        """Set a variable's lower bound and return the one before."""
        before = float(self._lower[variable])
        self._lower[variable] = value
        self._solver.changeColBounds(variable, value, float(self._upper[variable]))
        return before

    def fix(self, variable: int, value: float) -> None:
        """Fix a variable, whatever its bounds were."""
        self._solver.changeColBounds(variable, value, value)

    def allows(self, variable: int, value: float) -> bool:
        """Return whether a variable may have a value by the bounds that it was given."""
        return bool(value <= self._upper[variable])

    def solve(self) -> Floats | None:
        """Return the values of the optimum, or None where there is none."""
        import highspy

        self._solver.run()
        if self._solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        return np.array(self._solver.getSolution().col_value)
