"""Elementwise rows: dispatch, memory, arithmetic chains, elementary functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import DIVIDE, ERF, EXP, LOG, SIN, SQRT, TANH, WARM_UP, Function, Row

MILLION = 1_000_000


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, dtype=np.float32)


def scipy_erf(x: Any) -> Any:
    from scipy.special import erf  # NumPy has none

    return erf(x)


class WarmUp(Row):
    """What each process compiles first."""

    name, title, group = WARM_UP, "first compilation", "hidden"
    bytes, flops = 2 * 4 * 35, 2 * 35

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 7, 5),)

    @staticmethod
    def numpy(a: Any) -> Any:
        return a * 3 - 1

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a: a * 3 - 1)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a: a * 3 - 1

    @staticmethod
    def numba(numba: Any) -> Function:
        three, one = np.float32(3), np.float32(1)
        return numba.njit(lambda a: a * three - one, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda a: numexpr.evaluate("a*3 - 1")


class Small(Row):
    """What a call costs: sixteen elements take no time by themselves."""

    name, title = "small", "a*2 + b, 16 elements (dispatch)"
    bytes, flops = 3 * 16 * 4, 2 * 16

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 16), normal(rng, 16)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        return a * 2 + b

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a, b: a * 2 + b)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: a * 2 + b

    @staticmethod
    def numba(numba: Any) -> Function:
        two = np.float32(2)
        return numba.njit(lambda a, b: a * two + b)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda a, b: numexpr.evaluate("a*2 + b")


class Chain(Row):
    """Ten operations that a loop can do in one pass."""

    name, title = "chain", "10-op chain, 1M f32"
    bytes, flops, memory_bound = 2 * 4 * MILLION, (8 + DIVIDE + SQRT) * MILLION, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, MILLION),)

    @staticmethod
    def numpy(x: Any) -> Any:
        y = x * 2 + 1
        y = y * y - x
        y = np.maximum(y, 0) / (x * x + 1)
        return np.sqrt(y) + x

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy

        def run(x: Any) -> Any:
            y = x * 2 + 1
            y = y * y - x
            y = jnp.maximum(y, 0) / (x * x + 1)
            return jnp.sqrt(y) + x

        return jax.jit(run)

    @staticmethod
    def torch(torch: Any) -> Function:
        def run(x: Any) -> Any:
            y = x * 2 + 1
            y = y * y - x
            y = torch.relu(y) / (x * x + 1)
            return torch.sqrt(y) + x

        return run

    @staticmethod
    def numba(numba: Any) -> Function:
        zero, one, two = np.float32(0), np.float32(1), np.float32(2)

        def run(x: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.size):
                y = x[i] * two + one
                y = y * y - x[i]
                y = max(y, zero) / (x[i] * x[i] + one)
                out[i] = np.sqrt(y) + x[i]
            return out

        return numba.njit(run, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        def run(x: Any) -> Any:
            y = "((x*2 + 1)*(x*2 + 1) - x)"
            return numexpr.evaluate(f"sqrt(where({y} > 0, {y}, 0) / (x*x + 1)) + x")

        return run


class Transcendental(Row):
    """Five elementary functions for each element."""

    name, title = "transcendental", "tanh·sin + log(exp+1), 1M f32"
    bytes, flops = 2 * 4 * MILLION, (TANH + SIN + LOG + EXP + 3) * MILLION

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, MILLION),)

    @staticmethod
    def numpy(x: Any) -> Any:
        return np.tanh(x) * np.sin(x) + np.log(np.exp(x) + 1)

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy
        return jax.jit(lambda x: jnp.tanh(x) * jnp.sin(x) + jnp.log(jnp.exp(x) + 1))

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda x: torch.tanh(x) * torch.sin(x) + torch.log(torch.exp(x) + 1)

    @staticmethod
    def numba(numba: Any) -> Function:
        one = np.float32(1)

        def run(x: Any) -> Any:
            out = np.empty_like(x)
            for i in numba.prange(x.size):
                out[i] = np.tanh(x[i]) * np.sin(x[i]) + np.log(np.exp(x[i]) + one)
            return out

        return numba.njit(run, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda x: numexpr.evaluate("tanh(x)*sin(x) + log(exp(x) + 1)")


def prices(exp: Any, log: Any, sqrt: Any, erf: Any) -> Function:
    """Return Black and Scholes' formula over a library's functions."""

    def normal_cdf(x: Any) -> Any:
        return 0.5 * (1 + erf(x * 0.5**0.5))

    def run(spot: Any, strike: Any, years: Any, rate: Any, volatility: Any) -> Any:
        spread = volatility * sqrt(years)
        d1 = (log(spot / strike) + (rate + 0.5 * volatility**2) * years) / spread
        d2 = d1 - spread
        discounted = strike * exp(-rate * years)
        call = spot * normal_cdf(d1) - discounted * normal_cdf(d2)
        put = discounted * normal_cdf(-d2) - spot * normal_cdf(-d1)
        return call, put

    return run


class BlackScholes(Row):
    """European calls and puts."""

    name, title, dtype = "black_scholes", "Black–Scholes, 1M f64", "f64"
    bytes = 5 * 8 * MILLION
    flops = (LOG + EXP + 4 * ERF + SQRT + 2 * DIVIDE + 25) * MILLION
    kernel = "black_scholes"
    rtol, atol = 1e-9, 1e-9

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        spot, strike = rng.uniform(10, 50, MILLION), rng.uniform(10, 50, MILLION)
        return spot, strike, rng.uniform(0.2, 2, MILLION), 0.1, 0.2

    @staticmethod
    def numpy(*arguments: Any) -> Any:
        return prices(np.exp, np.log, np.sqrt, scipy_erf)(*arguments)

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        return prices(np.exp, np.log, np.sqrt, tj.erf)

    @staticmethod
    def jax(jax: Any) -> Function:
        jnp = jax.numpy
        return jax.jit(prices(jnp.exp, jnp.log, jnp.sqrt, jax.scipy.special.erf))

    @staticmethod
    def torch(torch: Any) -> Function:
        return prices(torch.exp, torch.log, torch.sqrt, torch.erf)

    @staticmethod
    def numba(numba: Any) -> Function:
        from math import erf, exp, log, sqrt

        @numba.njit
        def normal_cdf(x: Any) -> Any:
            return 0.5 * (1 + erf(x * 0.5**0.5))

        def run(spot: Any, strike: Any, years: Any, rate: Any, volatility: Any) -> Any:
            call, put = np.empty_like(spot), np.empty_like(spot)
            for i in numba.prange(spot.size):
                spread = volatility * sqrt(years[i])
                drift = (rate + 0.5 * volatility**2) * years[i]
                d1 = (log(spot[i] / strike[i]) + drift) / spread
                d2 = d1 - spread
                discounted = strike[i] * exp(-rate * years[i])
                call[i] = spot[i] * normal_cdf(d1) - discounted * normal_cdf(d2)
                put[i] = discounted * normal_cdf(-d2) - spot[i] * normal_cdf(-d1)
            return call, put

        return numba.njit(run, parallel=True)


class Copy(Row):
    """STREAM's copy: read an array, write another."""

    name, title, group = "copy", "-a, 16M f32 (memory)", "memory"
    bytes, flops, memory_bound = 2 * 4 * 16 * MILLION, 16 * MILLION, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return (normal(rng, 16 * MILLION),)

    @staticmethod
    def numpy(a: Any) -> Any:
        return -a

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a: -a)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a: -a

    @staticmethod
    def numba(numba: Any) -> Function:
        return numba.njit(lambda a: -a, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda a: numexpr.evaluate("-a")


class Triad(Row):
    """STREAM's triad: read two arrays, write a third."""

    name, title, group = "triad", "a + 3*b, 16M f32 (memory)", "memory"
    bytes, flops, memory_bound = 3 * 4 * 16 * MILLION, 2 * 16 * MILLION, True

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        return normal(rng, 16 * MILLION), normal(rng, 16 * MILLION)

    @staticmethod
    def numpy(a: Any, b: Any) -> Any:
        return a + 3 * b

    @staticmethod
    def jax(jax: Any) -> Function:
        return jax.jit(lambda a, b: a + 3 * b)

    @staticmethod
    def torch(torch: Any) -> Function:
        return lambda a, b: torch.add(a, b, alpha=3)

    @staticmethod
    def numba(numba: Any) -> Function:
        three = np.float32(3)
        return numba.njit(lambda a, b: a + three * b, parallel=True)

    @staticmethod
    def numexpr(numexpr: Any) -> Function:
        return lambda a, b: numexpr.evaluate("a + 3*b")
