"""How the requests of a trace come: bursts, slow changes and the shape of a day, without keeping the requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tokopt.domain.trace_summaries import ArrivalSummary, WindowSummary
from tokopt.units import SECONDS_PER_DAY, SECONDS_PER_HOUR

WINDOWS_S = (1.0, 10.0, 60.0, 600.0, 3600.0)
LEAST_GAPS = 20  # for a variation of them
STRETCH = 128  # gaps over which the rate is taken to be constant
LEAST_WINDOWS = 10  # for a dispersion
# Bursts are counted over the shortest of these in which enough requests come, often enough:
BURST_WINDOWS_S = WINDOWS_S[1:]
LEAST_MEAN, LEAST_SAMPLES = 10.0, 30
BURSTS = 10.0  # in a window, of as many requests as the dispersion says: shorter windows cut bursts in two
COARSE_SHARE = 0.05  # of requests at the time of the one before: from there on, the clock's ticks show
TICKS = 10.0  # in a window, where they do
LEAST_DAY_S = 20 * SECONDS_PER_HOUR
LEAST_OF_HOUR_S = 900.0  # that must be known for an hour's rate
BURSTINESS_RANGE = (1e-3, 1e3)
SHORTEST_S = 1e-9  # of a time that is told from none

Times = NDArray[np.float64]


class Gaps:
    """Times between requests: their mean and variance over all, and within stretches of `STRETCH`."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared differences from the mean
        self.zeros = 0
        self._last: float | None = None
        self._rest: Times = np.zeros(0)
        self._stretches = 0
        self._sum_cv2 = 0.0

    def add(self, times: Times) -> None:
        """Take more times, none earlier than those before."""
        gaps = np.diff(times, prepend=times[:1] if self._last is None else self._last)
        gaps = gaps[1:] if self._last is None else gaps
        self._last = float(times[-1])
        if gaps.size == 0:
            return
        mean, count = float(gaps.mean()), self.count + gaps.size
        apart = mean - self.mean
        self.squares += float(np.square(gaps - mean).sum()) + apart**2 * self.count * gaps.size / count
        self.mean += apart * gaps.size / count
        self.count = count
        self.zeros += int(np.count_nonzero(gaps == 0.0))
        pending = np.concatenate([self._rest, gaps])
        whole = pending.size // STRETCH * STRETCH
        self._rest = pending[whole:].copy()
        self._add_stretches(pending[:whole].reshape(-1, STRETCH))

    def _add_stretches(self, stretches: Times) -> None:
        means = stretches.mean(axis=1)
        moving = means > SHORTEST_S
        self._sum_cv2 += float((stretches[moving].var(axis=1, ddof=1) / np.square(means[moving])).sum())
        self._stretches += int(np.count_nonzero(moving))

    @property
    def cv2(self) -> float:
        """Squared coefficient of variation over the whole trace."""
        return self.squares / self.count / self.mean**2 if self.count and self.mean > SHORTEST_S else 1.0

    @property
    def short_cv2(self) -> float:
        """The same within stretches, in which slow changes of the rate do not show.

        A stretch's squared mean is too large by its own variance over n, on average; so with c the mean of the
        stretches' values, c / (1 - c/n).
        """
        if not self._stretches:
            return self.cv2
        found = self._sum_cv2 / self._stretches
        return found / (1.0 - min(found / STRETCH, 0.5))

    @property
    def tick_s(self) -> float:
        """Mean time between requests that do not come at once."""
        moving = self.count - self.zeros
        return self.mean * self.count / moving if moving else 0.0


class WindowCounts:
    """Requests in windows of one length, one after the other from time 0 on: sums over windows, not the windows."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._current, self._in_current = 0, 0  # the window that may go on
        self._before = (-1, 0)  # the last complete one that is not empty
        self._sum = self._squares = self._products = self._first = self._most = 0

    def add(self, times: Times) -> None:
        """Take more times, none earlier than those before."""
        numbers = np.floor(times / self.window_s).astype(np.int64)
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        windows, counts = numbers[starts], np.diff(starts, append=numbers.size)
        if windows[0] == self._current:
            counts[0] += self._in_current
        else:
            windows = np.concatenate([[self._current], windows])
            counts = np.concatenate([[self._in_current], counts])
        self._current, self._in_current = int(windows[-1]), int(counts[-1])
        self._complete(windows[:-1], counts[:-1])

    def _complete(self, windows: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        there = counts > 0
        windows, counts = windows[there], counts[there]
        if windows.size == 0:
            return
        if windows[0] == 0:
            self._first = int(counts[0])
        self._sum += int(counts.sum())
        self._squares += int(np.square(counts).sum())
        self._most = max(self._most, int(counts.max()))
        all_windows = np.concatenate([[self._before[0]], windows])
        all_counts = np.concatenate([[self._before[1]], counts])
        neighbours = np.diff(all_windows) == 1
        self._products += int((all_counts[1:] * all_counts[:-1])[neighbours].sum())
        self._before = (int(windows[-1]), int(counts[-1]))

    def summary(self, end_s: float) -> WindowSummary | None:
        """Return dispersions up to the last complete window; None where there are too few.

        With N_k requests in window k of K, the index of dispersion (Fano factor) is Var(N)/E(N). The steady one is the
        Allan factor, E(N_{k+1} - N_k)² / 2·E(N): what changes over many windows cancels. Both come to the squared
        variation of gaps in long windows of a renewal process (Cox, Lewis, "The Statistical Analysis of Series of
        Events", 1966, §4.5; Allan, Proc. IEEE 54(2), 1966; Lowen, Teich, "Fractal-Based Point Processes", 2005, §3.4).
        """
        windows = int(end_s // self.window_s)
        if self._current < windows:
            self._complete(np.array([self._current]), np.array([self._in_current]))
            self._current, self._in_current = windows, 0
        if windows < LEAST_WINDOWS or self._sum == 0:
            return None
        mean = self._sum / windows
        last = self._before[1] if self._before[0] == windows - 1 else 0
        steps = 2 * self._squares - self._first**2 - last**2 - 2 * self._products
        return WindowSummary(
            window_s=self.window_s,
            windows=windows,
            mean_requests=mean,
            dispersion=(self._squares - self._sum**2 / windows) / (windows - 1) / mean,
            steady_dispersion=steps / (2 * (windows - 1)) / mean,
            peak_to_mean=self._most / mean,
        )


class HourCounts:
    """Requests by hour of the day."""

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s  # of time 0 from midnight
        self.counts = np.zeros(24, dtype=np.int64)

    def add(self, times: Times) -> None:
        """Take more times."""
        hours = np.floor((times + self.offset_s) % SECONDS_PER_DAY / SECONDS_PER_HOUR).astype(np.int64)
        self.counts += np.bincount(np.minimum(hours, 23), minlength=24)

    def rates(self, end_s: float) -> tuple[NDArray[np.float64], tuple[int, ...]]:
        """Return requests/s of each hour of the day, and the hours that are between neighbours for lack of data."""
        known = self.seconds(end_s)
        seen = known >= LEAST_OF_HOUR_S
        hours = np.arange(24)
        rates = self.counts / np.maximum(known, 1.0)
        rates = np.where(seen, rates, np.interp(hours, hours[seen], rates[seen], period=24))
        return rates, tuple(int(hour) for hour in hours[~seen])

    def seconds(self, end_s: float) -> NDArray[np.float64]:
        """Return how many seconds of each hour of the day lie in the trace."""
        days, rest = divmod(end_s, SECONDS_PER_DAY)
        start = np.arange(48) * SECONDS_PER_HOUR  # of the hours of two days, for what goes past midnight
        low, high = self.offset_s, self.offset_s + rest
        inside = np.clip(np.minimum(start + SECONDS_PER_HOUR, high) - np.maximum(start, low), 0.0, None)
        seconds: NDArray[np.float64] = days * SECONDS_PER_HOUR + inside.reshape(2, 24).sum(axis=0)
        return seconds


class Arrivals:
    """Everything about how the requests of one stream come."""

    def __init__(self, offset_s: float) -> None:
        self.count = 0
        self.gaps = Gaps()
        self.windows = [WindowCounts(window) for window in WINDOWS_S]
        self.hours = HourCounts(offset_s)

    def add(self, times: Times) -> None:
        """Take more times, none earlier than those before."""
        self.count += times.size
        self.gaps.add(times)
        self.hours.add(times)
        for each in self.windows:
            each.add(times)

    def summary(self, end_s: float, rate_per_request: float) -> ArrivalSummary:
        """Return what they come to.

        Args:
            end_s: Time of the last request of the trace.
            rate_per_request: Requests/s that one request stands for: of a trace of n, (n - 1)/n over its span.
        """
        windows = [found for each in self.windows if (found := each.summary(end_s)) is not None]
        burstiness, error, basis, window_s = self._burstiness(windows)
        hourly: tuple[float, ...] = ()
        guessed: tuple[int, ...] = ()
        daily = None
        if end_s >= LEAST_DAY_S:
            rates, guessed = self.hours.rates(end_s)
            if not rates.any():  # a class that comes in hours alone of which too little is known
                rates = np.full(24, self.count * rate_per_request)
            daily = float(rates.mean())
            hourly = tuple(float(rate) / daily for rate in rates)
        return ArrivalSummary(
            requests_per_s=self.count * rate_per_request,
            gap_cv2=self.gaps.cv2,
            short_gap_cv2=self.gaps.short_cv2,
            simultaneous_share=self.gaps.zeros / self.gaps.count if self.gaps.count else 0.0,
            burstiness=burstiness,
            burstiness_sd=error,
            burstiness_from=basis,
            burstiness_window_s=window_s,
            windows=tuple(windows),
            hourly=hourly,
            hours_guessed=guessed,
            daily_requests_per_s=daily,
        )

    def _burstiness(
        self, windows: Sequence[WindowSummary]
    ) -> tuple[float, float, Literal["windows", "gaps", "nothing"], float | None]:
        """Return burstiness without slow changes, its standard error, what it is from, and its window.

        The dispersion between neighbouring windows, of the shortest in which enough requests come: they are about as
        long as requests stay in a replica, which is over what it smooths arrivals (peakedness: Eckberg, ITC 10, 1983;
        Fendick, Whitt, Proc. IEEE 77(1), 1989). It does not mind clocks that tick in seconds. Its relative error over
        K windows is √(3/K), of the Allan variance of white noise; in a window of m requests it is too low by c/4m of
        itself where gaps have a gamma distribution. Where no window will do, times between requests.
        """
        coarse = self.gaps.count and self.gaps.zeros / self.gaps.count > COARSE_SHARE
        least_s = TICKS * self.gaps.tick_s if coarse else 0.0
        fit = [
            each
            for each in windows
            if each.window_s in BURST_WINDOWS_S
            and each.window_s >= least_s
            and each.mean_requests >= LEAST_MEAN
            and each.windows >= LEAST_SAMPLES
        ]
        if fit:
            wide = (each for each in fit if each.mean_requests >= BURSTS * each.steady_dispersion)
            chosen = next(wide, fit[-1])
            found = _within_range(chosen.steady_dispersion)
            return found, found * (3.0 / chosen.windows) ** 0.5, "windows", chosen.window_s
        if coarse or self.gaps.count < LEAST_GAPS:
            return 1.0, 1.0, "nothing", None
        found = _within_range(self.gaps.short_cv2)
        return found, found * (2.0 * (1.0 + found) / self.gaps.count) ** 0.5, "gaps", None


def _within_range(value: float) -> float:
    return min(max(value, BURSTINESS_RANGE[0]), BURSTINESS_RANGE[1])
