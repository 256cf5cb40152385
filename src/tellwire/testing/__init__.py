"""What holds brokers and stores of presence to their contracts, for ours and for others'.

``contract`` has the suite (needs pytest), ``model`` a property test against a plain list (needs hypothesis
too), ``faulty`` a broker whose log fails on request. ``members`` has the suite of stores of presence.
"""

from __future__ import annotations

import sys

if "pytest" in sys.modules:
    import pytest

    # pytest explains failed asserts only in modules that it knows of before they are imported.
    for _module in (
        "appends", "bounds", "contract", "durability", "harness", "members", "members_left", "members_model", "model",
        "reads",
    ):  # fmt: skip
        pytest.register_assert_rewrite(f"{__name__}.{_module}")
