"""Fits logistic regressions on the data in a folder, one for each line of JSON on stdin."""
import json, os, sys, time, warnings
import numpy as np, scipy, scipy.sparse, sklearn, threadpoolctl
from sklearn.linear_model import LogisticRegression

folder, kind, rows, cols = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
read = lambda name, type: np.fromfile(os.path.join(folder, name), type)
y = read("y", np.float64)
if kind == "sparse":
    X = scipy.sparse.csr_matrix((read("data", np.float64), read("index", np.int32), read("ptr", np.int64).astype(np.int32)), shape=(rows, cols))
else:
    X = read("data", np.float64).reshape(rows, cols)
pools = [f"{p['internal_api']} {p.get('version')} {p.get('architecture', '')} {p['num_threads']} threads" for p in threadpoolctl.threadpool_info()]
print(json.dumps({"versions": f"scikit-learn {sklearn.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, python {sys.version.split()[0]}; " + ", ".join(pools)}), flush=True)
warnings.simplefilter("ignore")
for line in sys.stdin:
    ask = json.loads(line)
    more = {"intercept_scaling": 100.0} if ask["solver"] == "liblinear" else {}
    model = LogisticRegression(solver=ask["solver"], tol=ask["tol"], C=1.0, max_iter=2000, **more)
    start = time.perf_counter()
    try:
        model.fit(X, y)
    except Exception as e:
        print(json.dumps({"error": f"{type(e).__name__}: {e}"}), flush=True)
        continue
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "weights": model.coef_[0].tolist(), "intercept": float(model.intercept_[0]), "iterations": int(np.max(model.n_iter_))}), flush=True)
