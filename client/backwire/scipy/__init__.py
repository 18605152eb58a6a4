"""Formulas as functions of one vector: value, gradient and Hessian products for the optimizers of SciPy and others.

import backwire as bw
import backwire.scipy
import scipy.optimize

x = bw.input("x", (2,), dtype="float64")
rosenbrock = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

with bw.connect("embedded") as client, backwire.scipy.value_and_gradient(client, rosenbrock) as f:
    found = scipy.optimize.minimize(f, [-1.0, 1.0], jac=True, hessp=f.hessian_product, method="trust-ncg")

Needs no extra: whatever takes a function that returns a number and an array can use it.
"""

from backwire.scipy._objective import Objective, value_and_gradient

__all__ = ["Objective", "value_and_gradient"]
