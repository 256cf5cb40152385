"""The adviser: which transport, why, and with what to begin; its rules are data, the same for the page ``/advise``."""

from tellwire.advise.figures import SHIPPED, Figures, figures_of, last_run
from tellwire.advise.rules import RULES, Advice, Question, Rules, advise, load_rules

__all__ = [
    "RULES",
    "SHIPPED",
    "Advice",
    "Figures",
    "Question",
    "Rules",
    "advise",
    "figures_of",
    "last_run",
    "load_rules",
]
