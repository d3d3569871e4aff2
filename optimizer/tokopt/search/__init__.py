"""Which set-up of one replica serves a workload best on each accelerator."""

from tokopt.search.candidates import Candidate, SearchReport, evaluated, find_candidates
from tokopt.search.frontier import OperatingPoint, find_frontier, pareto
from tokopt.search.mixed import Alone, MixedReport, Side, Weight, find_mixed, standing_mixed
from tokopt.search.reach import LongestInput, holds, longest_input
from tokopt.search.sharing import Search, SharedSearch
from tokopt.search.space import SearchSpace
from tokopt.search.wide import WideLayout, best_wide_layout, expert_group, spreads

__all__ = [
    "Alone",
    "Candidate",
    "LongestInput",
    "MixedReport",
    "OperatingPoint",
    "Search",
    "SearchReport",
    "SearchSpace",
    "SharedSearch",
    "Side",
    "Weight",
    "WideLayout",
    "best_wide_layout",
    "evaluated",
    "expert_group",
    "find_candidates",
    "find_frontier",
    "find_mixed",
    "holds",
    "longest_input",
    "pareto",
    "spreads",
    "standing_mixed",
]
