"""Judge and report finished runs: gate, propose, report, compare, trend, merge."""
