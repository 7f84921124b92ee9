"""Builds mcastd: all but the C extension is in pyproject.toml, which has no word for cffi's entry."""

from setuptools import setup

setup(cffi_modules=["mcastd/kernel/_native_build.py:ffibuilder"])
