"""What each part of the method gives; benchmarks/ablation.py and benchmarks/method_figures.py start it.

command             the command line: which runs are missing, in how many processes
arms                the table of what is compared, a line each
job, processes      one run: trained, measured, made a record of; the processes that do it
results             the file of records, and what makes two runs the same one
report, plots       the tables and plots of docs/results.md
method_figures      the figures of docs/method.md
"""
