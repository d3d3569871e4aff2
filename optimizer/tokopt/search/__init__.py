"""Which set-up of one replica serves a workload best on each accelerator."""

from tokopt.search.candidates import Candidate, SearchReport, SearchSpace, find_candidates

__all__ = ["Candidate", "SearchReport", "SearchSpace", "find_candidates"]
