"""S-H-ESD over series from standard input (JSON): whether a value is an anomaly of its past and itself.

J. Hochenbaum, O. Vallis, A. Kejariwal, Automatic Anomaly Detection in the Cloud Via Statistical Learning,
arXiv:1704.07706 (2017), with the defaults of its package AnomalyDetection: a robust periodic STL, the median as the
trend, a generalised ESD test (Rosner 1983) on the rest by median and MAD, alpha 0.05, at most a tenth of the values.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from scipy.stats import t as student
from statsmodels.tsa.seasonal import STL

ALPHA, MOST = 0.05, 0.1


def last_is_anomalous(values: np.ndarray, period: int) -> bool:
    """Whether the test names the last value of the series."""
    window = 10 * len(values) + 1  # periodic, and evaluated at every tenth of each window, as in R
    trend = int(np.ceil(1.5 * period / (1 - 1.5 / window))) | 1
    jumps = {"seasonal_jump": -(-window // 10), "trend_jump": -(-trend // 10), "low_pass_jump": -(-period // 10)}
    seasonal = STL(values, period=period, seasonal=window, trend=trend, robust=True, **jumps).fit().seasonal
    rest = values - seasonal - np.median(values)
    count, left = len(rest), np.arange(len(rest))
    removed, number = [], 0
    for step in range(1, int(count * MOST) + 1):
        now = rest[left]
        middle = np.median(now)
        spread = 1.4826 * np.median(np.abs(now - middle))
        if spread < 1e-9 * np.abs(values).max():  # what rounding leaves of a constant
            break
        place = int(np.argmax(np.abs(now - middle)))
        statistic = abs(now[place] - middle) / spread
        removed.append(int(left[place]))
        left = np.delete(left, place)
        degrees = count - step - 1
        quantile = student.ppf(1 - ALPHA / (2 * (count - step + 1)), degrees)
        if statistic > (count - step) * quantile / np.sqrt((degrees + quantile**2) * (count - step + 1)):
            number = step
    return count - 1 in removed[:number]


for line in sys.stdin:
    asked = json.loads(line)
    values, walked = np.array(asked["values"]), asked["walked"]
    flags = [
        last_is_anomalous(values[max(0, index + 1 - walked) : index + 1], asked["period"])
        for index in range(asked["from"], len(values))
    ]
    print(json.dumps(flags), flush=True)
