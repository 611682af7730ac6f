#!/usr/bin/env python3
"""Makes l1_reference.json: L1 and elastic net fits of the design matrices in ../shared/data by scikit-learn.

    python3 -m venv /tmp/lr-venv && /tmp/lr-venv/bin/pip install scikit-learn
    /tmp/lr-venv/bin/python pkg/lr/testdata/l1_reference.py

saga runs until its weights move by less than a share of 1e-9 in a pass. Objective: C sum(log-loss) +
l1_ratio |w|_1 + (1 - l1_ratio) |w|^2 / 2, the intercept not penalised. Weights are rounded to 9 digits, and what
saga leaves at exactly 0 is 0. kkt is the largest residual of the optimality conditions, over the number of rows.
"""
import gzip, json, os, sys, warnings
import numpy as np, sklearn
from sklearn.linear_model import LogisticRegression

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.join(here, "../../../../shared/data")
CASES = [("german_credit", "mod5", 0.1, 1.0), ("german_credit", "mod5", 1.0, 0.5), ("taiwan_default", "mod5", 0.01, 1.0),
         ("sba_case", "mod5", 0.3, 1.0), ("sba_case", "time80", 0.3, 0.7), ("bitcoin_otc", "time80", 0.02, 1.0)]
out = {"sklearn": sklearn.__version__, "numpy": np.__version__, "fits": []}
for name, split, C, ratio in CASES:
    with gzip.open(f"{data}/{name}/design.{split}.csv.gz", "rt") as f:
        a = np.genfromtxt(f, delimiter=",", skip_header=1)
    a = a[a[:, 1] == 0]
    y, X = a[:, 0], np.ascontiguousarray(a[:, 2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = LogisticRegression(solver="saga", C=C, l1_ratio=ratio, tol=1e-9, max_iter=200000, random_state=1).fit(X, y)
    w, b = m.coef_[0], m.intercept_[0]
    z = X @ w + b
    p = 1 / (1 + np.exp(-z))
    g = C * X.T @ (p - y) + (1 - ratio) * w
    kkt = np.where(w != 0, abs(g + ratio * np.sign(w)), np.maximum(abs(g) - ratio, 0)).max()
    kkt = max(kkt, abs(C * (p - y).sum()))
    f = C * np.logaddexp(0, -(2 * y - 1) * z).sum() + ratio * abs(w).sum() + (1 - ratio) / 2 * w @ w
    print(name, split, C, ratio, m.n_iter_, "kkt", kkt / len(y), "zeros", (w == 0).sum(), "of", len(w), flush=True)
    out["fits"].append({"set": name, "split": split, "C": C, "l1_ratio": ratio, "intercept": float("%.9g" % b),
                        "coef": [float("%.9g" % v) for v in w], "objective": float("%.12g" % f), "kkt": float("%.2g" % (kkt / len(y)))})
with open(os.path.join(here, "l1_reference.json"), "w") as f:
    f.write(json.dumps(out).replace('{"set"', '\n{"set"') + "\n")
