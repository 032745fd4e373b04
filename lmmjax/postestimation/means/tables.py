"""Tables of marginal means and of their contrasts, on the scale of the model or of the response."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from lmmjax.fitted import Fitted, ModelData, require_choice, require_known, require_level, require_switch
from lmmjax.formula.many_rows import row_space
from lmmjax.formula.response import BackTransform, back_transform
from lmmjax.inference.delta import t_quantile
from lmmjax.inference.r2 import share_weights
from lmmjax.postestimation.hypotheses.adjust import METHODS as ADJUSTMENTS
from lmmjax.postestimation.hypotheses.adjust import Family, method_for
from lmmjax.postestimation.hypotheses.fixed_tests import METHODS, covariance_for, ddf_method
from lmmjax.postestimation.hypotheses.fixed_tests import notes as notes_of_tests
from lmmjax.postestimation.hypotheses.robust import robust_choice
from lmmjax.postestimation.means.contrast_methods import DEFAULTS, family_name, level_names, weights_of
from lmmjax.postestimation.means.linear import Functions, View, combined, estimates, name_missing, rows_of
from lmmjax.postestimation.means.reference_grid import predictors

TYPES = ("link", "response")


def view(
    fitted: Fitted,
    ddf: str,
    level: float,
    type: str = "link",
    bias_adjust: bool = False,
    sigma: float | None = None,
    robust: str | None = None,
    cluster: Any = None,
) -> View:
    """The view that is asked for; ValueError for what it cannot be."""
    ddf, level = ddf_method(ddf), require_level(level)
    if type not in TYPES:
        raise ValueError(f"type is 'link', the scale of the model, or 'response', not {type!r}")
    require_switch("bias_adjust", bias_adjust)
    if (bias_adjust or sigma is not None) and type != "response":
        raise ValueError(
            "bias_adjust and sigma are for results on the scale of the response: add type='response'"
        )
    if sigma is not None and not bias_adjust:
        raise ValueError("sigma is for the adjustment for bias: add bias_adjust=True")
    text = _transformed(fitted)
    back = back_transform(text, sample(fitted)) if type == "response" and text is not None else None
    number = isinstance(sigma, int | float | np.number) and not isinstance(sigma, bool)
    if sigma is not None and not (number and np.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma is a standard deviation on the scale of the model, not {sigma!r}")
    if back is not None and bias_adjust and sigma is None:
        sigma = total_sd(fitted)
    chosen = robust_choice(fitted.data, robust, cluster, ddf)
    return View(ddf, level, chosen, text, back, None if back is None or sigma is None else float(sigma))


def _transformed(fitted: Fitted) -> str | None:
    """The response as the formula has it, if it is no column of the data."""
    text = fitted.data.frame.response
    if text is None:
        return None
    try:
        return text if back_transform(text, sample(fitted)) is not None else None
    except ValueError:
        return text


def sample(fitted: Fitted) -> np.ndarray:
    """Values of the response: of the rows, or of some where these stand for many."""
    frame = fitted.data.frame
    shown = row_space(frame)
    return fitted.y if shown is frame else shown.y


def total_sd(fitted: Fitted) -> float:
    """√ of the mean over the rows of the marginal variance of the response: all variance components."""
    weights, _ = share_weights(fitted.data.design, [term.group for term in fitted.data.frame.random])
    with jax.enable_x64(True):
        between, noise = weights.split(np.asarray(fitted.estimate.psi))
    return float(np.sqrt(np.sum(np.asarray(between)) + np.sum(np.asarray(noise))))


def on_response(
    back: BackTransform, sigma: float | None, table: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """estimate, se, lower and upper on the scale of the response, by the delta method.

    With h the inverse of the transformation, E h(η + e) ≈ h(η) + ½σ²h″(η) where the adjustment for bias is
    asked for, and the standard error is that of its derivative; limits are transformed.
    """
    half = 0.0 if sigma is None else 0.5 * sigma**2

    def moved(eta: np.ndarray) -> np.ndarray:
        h, _, h2, _ = back.jet(eta)
        return h + half * h2 if half else h

    _, h1, _, h3 = back.jet(table["estimate"])
    ends = np.sort([moved(back.at_ends(table[name])) for name in ("lower", "upper")], axis=0)
    slope = h1 + half * h3 if half else h1
    own = {"estimate": moved(table["estimate"]), "se": np.abs(slope) * table["se"]}
    return own | {"lower": ends[0], "upper": ends[1]}


def means_table(fitted: Fitted, functions: Functions, how: View) -> pd.DataFrame:
    """Labels and estimate, se, df, lower, upper of means or slopes, not adjusted."""
    table = estimates(fitted, functions, how)
    half = t_quantile(table["df"], how.level) * table["se"]
    table |= {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    if how.back is not None:
        table |= on_response(how.back, how.sigma, table)
    columns = {name: table[name] for name in ("estimate", "se", "df", "lower", "upper")}
    out = pd.concat([functions.labels.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
    gone = name_missing(
        fitted.data, level_names(functions.labels, brackets=False), np.isnan(table["estimate"])
    )
    out.attrs.update(notes(fitted, functions, how) | ({"not_estimable": gone} if gone else {}))
    return out


def notes(fitted: Fitted, functions: Functions, how: View) -> dict[str, Any]:
    """What tables say in their `attrs`."""
    own: dict[str, Any] = {**notes_of_tests(fitted, how.ddf, how.robust), "level": how.level}
    if functions.averaged:
        own["averaged_over"] = list(functions.averaged)
    if functions.interacting:
        own["interacting"] = list(functions.interacting)
    if how.text is not None:
        own["scale"] = "response" if how.back is not None else how.text
    if how.sigma is not None:
        own["bias_adjusted"] = f"for a standard deviation of {how.sigma:.4g}"
    return own


@dataclasses.dataclass(frozen=True, eq=False)
class Contrasted:
    """Contrasts of means.

    Attributes
    ----------
    functions : the contrasts; adjust : what was asked for.
    means : by family, how many means; pairwise : whether these are compared in pairs; ratio : c where
        differences are reported as ratios exp(cδ).
    """

    functions: Functions
    adjust: str
    means: tuple[int, ...]
    pairwise: bool
    ratio: float | None = None


def contrasted(
    functions: Functions, how: View, method: Any, adjust: str | None, by: Any, ref: Any
) -> Contrasted:
    """See `MarginalMeans.contrast`."""
    groups = functions.by if by is None else (by,) if isinstance(by, str) else tuple(by)
    columns = [str(name) for name in functions.labels.columns]
    require_known("by-column", groups, columns)
    kind, families = family_name(method), functions.families(groups)
    ratio = None if how.back is None else how.back.ratio
    made = _written(functions, families, groups, method, ref, " - " if ratio is None else " / ")
    if ratio is not None and not all(np.allclose(w.sum(axis=1), 0.0, atol=1e-12) for w, _, _ in made):
        # a difference of logarithms is a ratio, another sum of them is not
        ratio, made = None, _written(functions, families, groups, method, ref, " - ")
    weights = np.concatenate([w for w, _, _ in made])
    if not len(weights):
        raise ValueError(
            f"there is one mean {'in each family ' * bool(groups)}and nothing to compare it with"
        )
    # contrasts of contrasts, by their name
    called = "contrast" if "contrast" not in groups else "contrast1"
    labels = pd.DataFrame([one for _, own, _ in made for one in own], columns=[0, *groups])
    labels = labels.rename(columns={0: called})
    chosen = (DEFAULTS[kind] if kind is not None else "none") if adjust is None else adjust
    chosen = chosen.lower() if isinstance(chosen, str) else chosen
    require_choice("adjust", chosen, ADJUSTMENTS)
    means = tuple(count for w, _, count in made if len(w))
    pairwise = kind in ("pairwise", "revpairwise")
    return Contrasted(combined(functions, weights, labels, groups), chosen, means, pairwise, ratio)


def _written(
    functions: Functions,
    families: list[tuple[tuple, np.ndarray]],
    groups: Sequence[str],
    method: Any,
    ref: Any,
    between: str,
) -> list[tuple[np.ndarray, list[dict[str, Any]], int]]:
    """By family weights (m, k) of all k functions, labels, and how many functions are compared."""
    out = []
    for key, at in families:
        levels = functions.labels.loc[at, [c for c in functions.labels.columns if c not in groups]]
        names = level_names(levels) if len(levels.columns) else ["overall"] * len(at)
        weights, called = weights_of(method, names, ref, between, levels)
        whole = np.zeros((len(weights), len(functions.labels)))
        whole[:, at] = weights
        own = [{0: name, **dict(zip(groups, key, strict=True))} for name in called]
        out.append((whole, own, len(at)))
    return out


def simultaneous(
    fitted: Fitted, contrasted: Contrasted, how: View
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """estimate, se, df, t and adjusted p (k,), and the multiples (k,) of se in simultaneous limits."""
    functions = contrasted.functions
    table = estimates(fitted, functions, how)
    rows, _ = rows_of(fitted.data, functions)
    margin, p = np.full(len(rows), np.nan), table["p"].copy()
    for (_, at), means in zip(functions.families(), contrasted.means, strict=True):
        family = _family(fitted, how, rows[at], table["t"][at], table["df"][at], means, contrasted.pairwise)
        p[at] = family.p_values(contrasted.adjust)
        margin[at] = family.critical(contrasted.adjust, how.level)
    return table | {"p": p}, margin


def contrast_table(fitted: Fitted, contrasted: Contrasted, how: View) -> pd.DataFrame:
    """Labels and estimate, se, df, lower, upper, t, p; limits and p adjusted family by family."""
    functions = contrasted.functions
    table, margin = simultaneous(fitted, contrasted, how)
    half = margin * table["se"]
    table |= {"lower": table["estimate"] - half, "upper": table["estimate"] + half}
    if contrasted.ratio is not None:
        ends = np.sort([np.exp(contrasted.ratio * table[name]) for name in ("lower", "upper")], axis=0)
        ratio = np.exp(contrasted.ratio * table["estimate"])
        table |= {"estimate": ratio, "se": np.abs(contrasted.ratio) * ratio * table["se"]}
        table |= {"lower": ends[0], "upper": ends[1]}
    columns = {name: table[name] for name in ("estimate", "se", "df", "lower", "upper", "t", "p")}
    out = pd.concat([functions.labels.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
    gone = name_missing(
        fitted.data, [str(n) for n in functions.labels.iloc[:, 0]], np.isnan(table["estimate"])
    )
    out.attrs.update(notes(fitted, functions, how) | ({"not_estimable": gone} if gone else {}))
    out.attrs.update(_adjustment(contrasted))
    if how.back is not None:
        out.attrs["scale"] = "ratios of the response" if contrasted.ratio is not None else how.text
        out.attrs.pop("bias_adjusted", None)
    return out


def _family(
    fitted: Fitted, how: View, rows: np.ndarray, t: np.ndarray, df: np.ndarray, means: int, pairwise: bool
) -> Family:
    def correlation() -> np.ndarray:
        cov = covariance_rows(fitted, how, rows)
        sd = np.sqrt(np.diagonal(cov))
        with np.errstate(divide="ignore", invalid="ignore"):
            return cov / sd[:, None] / sd[None, :]

    return Family(t, df, means, correlation, pairwise)


def covariance_rows(fitted: Fitted, how: View, rows: np.ndarray) -> np.ndarray:
    """LΦLᵀ (k, k) for rows L (k, p), with the covariance that the degrees of freedom belong to."""
    return rows @ covariance_for(fitted, how.ddf, how.robust) @ rows.T


def covariance_of(fitted: Fitted, functions: Functions, how: View) -> np.ndarray:
    """Covariance (k, k) of the estimates, NaN where one is not estimable."""
    rows, known = rows_of(fitted.data, functions)
    cov = covariance_rows(fitted, how, np.where(known[:, None], rows, 0.0))
    return np.where(known[:, None] & known[None, :], cov, np.nan)


def slopes(data: ModelData, name: str) -> str:
    """The covariate, or ValueError if it is none."""
    own = {p.name: p for p in predictors(data)}
    require_known("covariate", [name] if isinstance(name, str) else [str(name)], own)
    if not own[name].covariate or not own[name].levels or isinstance(own[name].levels[0], pd.Timestamp):
        numbers = [p.name for p in own.values() if p.covariate]
        raise ValueError(
            f"{name!r} is a factor in this model, and slopes are of covariates: "
            + (f"there are {', '.join(numbers)}" if numbers else "there are none; emmeans compares levels")
        )
    return name


def _adjustment(contrasted: Contrasted) -> dict[str, str]:
    """The method, and what took its place; none where each family is a single contrast."""
    asked, sizes = contrasted.adjust, [len(at) for _, at in contrasted.functions.families()]
    done = method_for(asked, max(sizes, default=0), contrasted.pairwise)
    own = {"adjust": done}
    if asked == "tukey" and done == "sidak":
        own["adjust_note"] = "Tukey's method is for pairwise comparisons: Šidák's took its place"
    if done in ("holm", "fdr"):
        own["adjust_note"] = "limits are Bonferroni's"
    return own


def printed_notes(attrs: Mapping[Any, Any]) -> list[str]:
    """Attributes of a table as lines."""
    lines = [
        f"{METHODS_IN_PRINT.get(attrs['ddf'], attrs['ddf'])} degrees of freedom; {attrs['level']:.0%} limits"
    ]
    if over := attrs.get("averaged_over"):
        lines.append(f"averaged over: {', '.join(over)}")
    if factors := attrs.get("interacting"):
        lines.append(f"which may mislead: these differ by the levels of {', '.join(factors)}, an interaction")
    if scale := attrs.get("scale"):
        lines.append(f"on the scale of {scale if scale != 'response' else 'the response'}")
    if bias := attrs.get("bias_adjusted"):
        lines.append(f"adjusted for bias, {bias}")
    if attrs.get("adjust", "none") != "none":
        lines.append(f"limits and p adjusted: {attrs['adjust']}")
    lines += [str(attrs[name]) for name in ("adjust_note", "note") if name in attrs]
    if gone := attrs.get("not_estimable"):
        lines.append(f"not estimable: {'; '.join(gone)}")
    return lines


METHODS_IN_PRINT = {METHODS["normal"]: "infinite"}


def regridded(fitted: Fitted, functions: Functions, how: View) -> Functions:
    """The means on the scale of the response as linear functions, by the delta method: Dh Lβ̂ + constants."""
    assert how.back is not None
    estimate = estimates(fitted, functions, how)["estimate"]
    half = 0.0 if how.sigma is None else 0.5 * how.sigma**2
    h, h1, h2, h3 = how.back.jet(estimate)
    slope = np.where(np.isnan(h1), np.nan, h1 + (half * h3 if half else 0.0))
    value = h + (half * h2 if half else 0.0)
    out = combined(functions, np.diag(np.nan_to_num(slope)), functions.labels, functions.by)
    linear = estimates(fitted, out, how)["estimate"]
    shift = np.where(np.isnan(value), np.nan, out.shift + value - np.nan_to_num(linear))
    whole = np.where(np.isnan(value)[:, None], np.nan, out.whole)
    return dataclasses.replace(functions, whole=whole, shift=shift)
