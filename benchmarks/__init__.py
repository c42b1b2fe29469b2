"""The project's measurements; every number in README and docs comes from one of three commands.

run.py              how fast: operators, steps, loaders; see speed/
ablation.py         what each part of the method gives, written to docs/results.md; see ablation/
method_figures.py   the figures of docs/method.md, from the runs that ablation.py leaves; see ablation/
provenance.py       machine, versions and commit: what both kinds of records say of where they come from
"""
