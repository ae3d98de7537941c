"""What an upgrade may do to a library, as code that alters it before the worker starts."""

BRIGHTER = """
import diffusers
original = diffusers.DDPMPipeline.__call__
def brighter(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images * 0.9 + 0.1
    return output
diffusers.DDPMPipeline.__call__ = brighter
"""
RAISING = """
import diffusers
def call(self, *args, **kwargs):
    raise TypeError("unexpected keyword argument 'generator'")
diffusers.DDPMPipeline.__call__ = call
"""
RESTLESS = """
import diffusers, random
original = diffusers.DDPMPipeline.__call__
def restless(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.images = output.images + 1e-4 * random.random()
    return output
diffusers.DDPMPipeline.__call__ = restless
"""
WARNING = """
import warnings
import diffusers
original = diffusers.DDPMPipeline.__call__
def warned(self, *args, **kwargs):
    warnings.warn("`steps` is deprecated", FutureWarning)
    return original(self, *args, **kwargs)
diffusers.DDPMPipeline.__call__ = warned
"""


WAITING = """
import diffusers
original = diffusers.DDPMScheduler.step
def waiting(self, *args, **kwargs):
    output = original(self, *args, **kwargs)
    output.prev_sample.mean().item()
    return output
diffusers.DDPMScheduler.step = waiting
"""
UNCOUNTED = """
import bench.calls.work
def counted_call(loaded, case):
    raise RuntimeError("no such dispatch mode")
bench.calls.work.counted_call = counted_call
"""
SLOW_DECODER = """
import diffusers
original = diffusers.AutoencoderKL.decode
def slow(self, *args, **kwargs):
    for _ in range(11):
        original(self, *args, **kwargs)
    return original(self, *args, **kwargs)
diffusers.AutoencoderKL.decode = slow
"""
DYING = """
import os, diffusers
original, calls = diffusers.DDPMPipeline.__call__, []
def dying(self, *args, **kwargs):
    calls.append(None)
    if len(calls) > 1:
        os._exit(7)
    return original(self, *args, **kwargs)
diffusers.DDPMPipeline.__call__ = dying
"""
