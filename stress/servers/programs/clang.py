"""clang: the programs of gcc.py built by clang at -O2; the assembly must agree and the programs run."""
import importlib.util
import os

PACKAGES = ("clang", "g++", "libc6-dev")
NEEDS = ("clang", "clang++")
PROVEN = ("clang", "c_program", "cxx_program")
LIMIT = 180


def work(run):
    path = os.path.join(os.path.dirname(os.path.realpath(__file__)), "gcc.py")
    spec = importlib.util.spec_from_file_location("program_gcc_for_clang", path)
    gcc = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gcc)
    return gcc.compile_and_run(run, "clang", "clang++", "-fno-inline")
