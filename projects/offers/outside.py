"""Fit a statsmodels Logit on columns cleaned by hand: `python outside.py ROWS.csv FILE.pkl`.

Only the pickled file is imported, not this code.
"""

import sys

import pandas as pd
import statsmodels.formula.api as smf

NUMBERS = ["x2", "x7", "x11", "x18", "x22", "x29", "x33", "x37", "x44", "x49", "x53", "x58", "x66", "x70", "x83"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
FORMULA = "y ~ " + " + ".join([*NUMBERS, "x12", "x77", "x63", "C(x5)", "C(x31)"])


def amount(text: str) -> float:
    negative = text.startswith("(")
    return (-1 if negative else 1) * float(text.strip("()$%").replace(",", ""))


def clean_by_hand(table: pd.DataFrame) -> pd.DataFrame:
    """Parse amounts, days and regions; drop rows with an invalid or missing cell."""
    used = table[[*NUMBERS, "x12", "x77", "x63", "x5", "x31", "y"]].dropna()
    days = {day[:3].lower(): day for day in DAYS}
    clean = used.assign(
        **{name: used[name].map(amount) for name in ("x12", "x77", "x63")},
        x5=used["x5"].str.strip().str.lower().str[:3].map(days),
        x31=used["x31"].str.strip().str.lower(),
    )
    return clean[clean["x31"].isin(["asia", "america", "germany", "japan"])].dropna()


if __name__ == "__main__":
    rows, file = sys.argv[1:]
    smf.logit(FORMULA, clean_by_hand(pd.read_csv(rows))).fit(disp=0).save(file, remove_data=True)
