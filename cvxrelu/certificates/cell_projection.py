"""Projections onto the cells of an arrangement in three dimensions, all cells at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["Cells", "dots", "project"]

MAX_ROUNDS = 100
INSIDE = 1e-13  # a cell contains u when E_k d_k @ u >= -INSIDE |q|: tightness rests on it, validity does not
STATIONARY = 1e-9  # of |q|, for multipliers of local maxima


class Cells(NamedTuple):
    """Of the cells that were not dropped: projections, upper bounds on their norms, which are local maxima."""

    points: Float[np.ndarray, "3 B"]
    bounds: Float[np.ndarray, " B"]
    maxima: Bool[np.ndarray, " B"]


def project(
    normals: np.ndarray,
    patterns: np.ndarray,
    q: np.ndarray,
    weights: np.ndarray,
    best: float,
    above: float,
    rounding: float,
) -> Cells:
    """Column b of q onto the cell of column b of `patterns`, where the result may exceed min(best, above)."""
    columns, u = np.arange(q.shape[1]), q
    active, mu = np.full((2, q.shape[1]), -1), np.zeros((2, q.shape[1]))
    bounds = np.linalg.norm(q, axis=0)
    finished: list[Cells] = []
    for _ in range(MAX_ROUNDS):
        kept = bounds > min(best, above)
        columns, u, active, mu, bounds = columns[kept], u[:, kept], active[:, kept], mu[:, kept], bounds[kept]
        if columns.size == 0:
            break
        slack = normals @ u
        np.negative(slack, out=slack, where=~patterns[:, columns])
        entering = np.argmin(slack, axis=0)
        size = np.linalg.norm(q[:, columns], axis=0)
        done = slack[entering, np.arange(columns.size)] >= -INSIDE * size
        better = _enter(normals, patterns, q, columns, np.vstack([entering, active]), rounding)
        stuck = ~done & ~(better.bounds < bounds)
        over = done | stuck
        kinks = np.where(active >= 0, np.maximum(-weights[active], 0.0), 0.0)
        maxima = done & np.all(mu <= kinks + STATIONARY * size, axis=0)
        finished.append(Cells(_onto(normals, active[:, over], u[:, over]), bounds[over], maxima[over]))
        best = max(best, bounds[over].max(initial=0.0))
        columns, u, active = columns[~over], better.u[:, ~over], better.active[:, ~over]
        mu, bounds = better.mu[:, ~over], better.bounds[~over]
    finished.append(Cells(u, bounds, np.zeros(len(bounds), dtype=bool)))
    return Cells(*(np.concatenate(parts, axis=-1) for parts in zip(*finished, strict=True)))


def _onto(normals: np.ndarray, active: Int[np.ndarray, "2 B"], u: Float[np.ndarray, "3 B"]) -> np.ndarray:
    """u on its active planes once more: short beside q, it is off them by the rounding of q."""
    lengths = np.linalg.norm(u, axis=0)
    u = (u / np.where(lengths > 0, lengths, 1.0)).T
    first, second = ((active[k] >= 0)[:, None] * normals[active[k]] for k in (0, 1))
    second = second - dots(first, second)[:, None] * first
    second = unit_columns(second.T).T * np.any(second != 0, axis=1)[:, None]
    for _ in range(2):
        for normal in (first, second):
            u = u - dots(normal, u)[:, None] * normal
    return u.T * lengths


class _Step(NamedTuple):
    u: Float[np.ndarray, "3 B"]
    active: Int[np.ndarray, "2 B"]
    mu: Float[np.ndarray, "2 B"]
    bounds: Float[np.ndarray, " B"]


def _enter(
    normals: np.ndarray,
    patterns: np.ndarray,
    q: np.ndarray,
    columns: np.ndarray,
    planes: Int[np.ndarray, "3 B"],
    rounding: float,
) -> _Step:
    """The lowest bound over subsets of three planes that contain the first one; -1 stands for no plane."""
    q = q[:, columns]
    present = planes >= 0
    signs = np.where(patterns[planes, columns], 1.0, -1.0) * present
    c, a, b = signs[:, :, None] * normals[planes]
    none = np.zeros(len(columns))
    choices = [(np.array([0, -1]), np.stack([-dots(q.T, c), none, none]))]
    with np.errstate(divide="ignore", invalid="ignore"):
        for k, other in ((1, a), (2, b)):
            line = np.cross(c, other)
            length = dots(line, line)
            first, second = -dots(q.T, np.cross(other, line)) / length, -dots(q.T, np.cross(line, c)) / length
            choices.append((np.array([0, k]), np.stack([first, *((second, none) if k == 1 else (none, second))])))
        triples = [np.cross(a, b), np.cross(b, c), np.cross(c, a)]
        volume = dots(c, triples[0])
        choices.append((np.array([-1, -1]), np.stack([-dots(q.T, triple) / volume for triple in triples])))
    step = _Step(q, np.full((2, len(columns)), -1), np.zeros((2, len(columns))), np.full(len(columns), np.inf))
    for chosen, mu in choices:
        mu = np.where(np.all(mu >= 0, axis=0) & np.all(np.isfinite(mu), axis=0), mu, np.nan)
        u = q + (mu[0, :, None] * c + mu[1, :, None] * a + mu[2, :, None] * b).T
        bounds = np.linalg.norm(u, axis=0) + rounding * mu.sum(axis=0)
        lower = bounds < step.bounds  # false for nan
        # At the tip of the cell, reached by three planes, nothing is a maximum.
        kept = np.where(chosen[:, None] < 0, np.inf if chosen[0] < 0 else 0.0, mu[chosen])
        kept_planes = np.where(chosen[:, None] < 0, -1, planes[chosen])
        step = _Step(
            np.where(lower, u, step.u),
            np.where(lower, kept_planes, step.active),
            np.where(lower, kept, step.mu),
            np.where(lower, bounds, step.bounds),
        )
    return step


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a * b, axis=1)


def unit_columns(points: np.ndarray) -> np.ndarray:
    """Columns divided by their norms; zero becomes the first unit vector."""
    norms = np.linalg.norm(points, axis=0)
    first = np.eye(len(points), 1)
    return np.where(norms > 0, points, first) / np.where(norms > 0, norms, 1.0)
