"""Which set-up of one replica serves a workload best on each accelerator."""

from tokopt.search.candidates import Candidate, SearchReport, evaluated, find_candidates
from tokopt.search.frontier import OperatingPoint, find_frontier, pareto
from tokopt.search.reach import LongestInput, longest_input
from tokopt.search.sharing import Search, SharedSearch
from tokopt.search.space import SearchSpace

__all__ = [
    "Candidate",
    "LongestInput",
    "OperatingPoint",
    "Search",
    "SearchReport",
    "SearchSpace",
    "SharedSearch",
    "evaluated",
    "find_candidates",
    "find_frontier",
    "longest_input",
    "pareto",
]
