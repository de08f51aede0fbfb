"""Puts hardware_profiles/ and search_spaces/, which stand beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("hardware_profiles", "search_spaces")


class BuildWithShippedData(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:  # a checkout is read in place: automc.profiles.shipped_folder looks beside the package
            return
        for name in SHIPPED:
            if Path(name).is_dir():
                copytree(name, Path(self.build_lib) / "automc" / name, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithShippedData})
