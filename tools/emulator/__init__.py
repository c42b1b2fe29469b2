"""CUDA kernels on a CPU: emulator.h says how, emulated.py offers the operators."""
