"""Benchmark and regression suite for Stable Diffusion and DDPM pipelines."""
