"""Schedulers against closed form: Gaussian data has an exact denoiser and an exact solution."""
