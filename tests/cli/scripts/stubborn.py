"""A script that handles every Exception, and one that fails."""

import sys

import graphtorch as torch


@torch.compile
def step(x):
    return x + 1


def fail():
    raise KeyError("the user's mistake")


if "fail" in sys.argv:
    fail()
if "exit" in sys.argv:
    sys.exit("the user's exit")
for _ in range(3):
    try:
        step(torch.ones(2))
    except Exception:
        print("handled")
    finally:
        print("cleaned up")
