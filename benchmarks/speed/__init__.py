"""Speed and memory, an area a module; benchmarks/run.py starts it.

command             the command line
ops                 the operators: ops_cases has the workloads, ops_baseline the torch code that they replace
step                whole training steps; components: with one part of the method after the other
data                the loaders; data_baseline is the field's
roofline            what the CUDA kernels execute, counted by the emulator: launches finds out which kernels a call
                    launches, machine_code how often each instruction is executed, gpu_model what that takes on an H200
                    (fitted to gpu_readings.json)
measure             times, memory and a machine's floors (exp_speed.cpp is one of them)
selection, output   what was asked for on the command line; the table, JSON, CSV, charts and comparison of the records
"""
