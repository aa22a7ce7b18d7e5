"""Which of the good quotes are wanted: by days to expiry, by strike, and by how many there are of an expiry."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qsde.errors import Reject
from qsde.market.cleaning import CleaningRules, mark


def select_days(table: pd.DataFrame, options: CleaningRules) -> None:
    """Marks, in place, the quotes of expiries nearer or farther than selected."""
    table["days"] = 365 * table["t"]
    detail = f"{{days:.4g}} days to expiry {{expiry}}: selected are {options.min_days:g} to {options.max_days:g}"
    mark(table, ~table["days"].between(options.min_days, options.max_days), Reject.NOT_SELECTED, detail)


def select_deviations(table: pd.DataFrame, options: CleaningRules) -> None:
    """Marks, in place, strikes too many at-the-money standard deviations away from the forward."""
    standing = table[table["reason"].isna()]
    moneyness = pd.Series(np.abs(np.log(standing["strike"] / standing["F"])), index=standing.index)
    nearest = standing.loc[moneyness.sort_values(kind="stable").index].groupby("t")["iv"].first()
    table["atm_vol"] = standing["t"].map(nearest).astype(float).reindex(table.index)
    table["deviations"] = (moneyness / (table["atm_vol"] * np.sqrt(standing["t"]))).reindex(table.index)
    detail = (
        "strike {strike:g} is {deviations:.1f} standard deviations (at-the-money vol {atm_vol:.4g}) from the forward "
        f"{{F:.6g}}: selected are {options.max_deviations:g}"
    )
    mark(table, table["deviations"] > options.max_deviations, Reject.NOT_SELECTED, detail)


def select_filled(table: pd.DataFrame, least: int) -> None:
    """Marks, in place, the quotes of expiries with fewer than `least` of them standing."""
    standing = table["reason"].isna()
    table["n_usable"] = table["t"].map(table.loc[standing, "t"].value_counts())
    detail = f"only {{n_usable:.0f}} usable quotes at {{expiry}}: min_quotes_per_expiry is {least}"
    mark(table, table["n_usable"] < least, Reject.NOT_SELECTED, detail)
